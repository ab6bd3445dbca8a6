#include "devices/virtio/block.h"

#include <fmt/format.h>
#include <sys/epoll.h>

#include <algorithm>
#include <cerrno>

#include "devices/virtio/chain_io.h"
#include "devices/virtio/file_disk.h"

namespace virtio {

using base::fail;
using base::Result;

namespace {

// Feature bits (virtio 1.2, 5.2.3).
constexpr uint64_t kSegMax = 1ull << 2;
constexpr uint64_t kReadOnly = 1ull << 5;
constexpr uint64_t kBlkSize = 1ull << 6;
constexpr uint64_t kFlush = 1ull << 9;
constexpr uint64_t kTopology = 1ull << 10;
constexpr uint64_t kDiscard = 1ull << 13;
constexpr uint64_t kWriteZeroes = 1ull << 14;

struct Config {       // virtio 1.2, 5.2.4
  uint64_t capacity;  // sectors
  uint32_t size_max;
  uint32_t seg_max;
  uint16_t cylinders;
  uint8_t heads;
  uint8_t sectors;
  uint32_t blk_size;
  uint8_t physical_block_exp;
  uint8_t alignment_offset;
  uint16_t min_io_size;  // blocks
  uint32_t opt_io_size;  // blocks
  uint8_t writeback;
  uint8_t unused0;
  uint16_t num_queues;
  uint32_t max_discard_sectors;
  uint32_t max_discard_seg;
  uint32_t discard_sector_alignment;
  uint32_t max_write_zeroes_sectors;
  uint32_t max_write_zeroes_seg;
  uint8_t write_zeroes_may_unmap;
  uint8_t unused1[3];
};
static_assert(sizeof(Config) == 64 && offsetof(Config, max_discard_sectors) == 36 &&
              offsetof(Config, write_zeroes_may_unmap) == 56);

constexpr uint8_t kPhysicalBlockExponent = 3;  // 4 KiB, what disks and host file systems work in
constexpr uint32_t kSectorsInBlock = 1 << kPhysicalBlockExponent;

}  // namespace

Result<std::unique_ptr<Block>> Block::create(Options options) {
  if (options.disk) return create(std::move(options.disk), options.id, options.serial);
  TRY_ASSIGN(BlockFile file,
             BlockFile::open({options.path, options.read_only, options.access, options.raw}));
  TRY_ASSIGN(auto disk, FileDisk::create(std::move(file)));
  return create(std::move(disk), options.id, options.serial);
}

std::unique_ptr<Block> Block::create(std::unique_ptr<Disk> disk, std::string id,
                                     const std::string& serial) {
  return std::unique_ptr<Block>(new Block(std::move(disk), std::move(id), serial));
}

Block::Block(std::unique_ptr<Disk> disk, std::string id, const std::string& serial)
    : id_(std::move(id)), disk_(std::move(disk)) {
  const std::string& shown = serial.empty() ? id_ : serial;
  std::copy_n(shown.begin(), std::min(shown.size(), serial_.size()), serial_.begin());
}

uint64_t Block::features() const {
  uint64_t features = kSegMax | kBlkSize | kFlush | kTopology;
  if (disk_->read_only()) return features | kReadOnly;
  return features | kWriteZeroes | (disk_->can_discard() ? kDiscard : 0);
}

void Block::read_config(uint32_t offset, std::span<uint8_t> data) const {
  Config config{};
  config.capacity = disk_->size() / kSectorBytes;
  config.seg_max = kQueueSize - 2;  // header and status take a descriptor each
  config.blk_size = kSectorBytes;
  config.physical_block_exp = kPhysicalBlockExponent;
  config.min_io_size = kSectorsInBlock;
  config.num_queues = 1;
  config.max_discard_sectors = config.max_write_zeroes_sectors = kMaxRangeSectors;
  config.max_discard_seg = config.max_write_zeroes_seg = kMaxBlockRanges;
  config.discard_sector_alignment = kSectorsInBlock;
  config.write_zeroes_may_unmap = disk_->can_discard();
  read_config_bytes({reinterpret_cast<const uint8_t*>(&config), sizeof config}, offset, data);
}

Result<void> Block::activate(Transport& transport, uint64_t features) {
  transport_ = &transport;
  TRY(transport.watch(disk_->event_fd(), EPOLLIN, [this](uint32_t) { return on_event(); }));
  write_through_ = !(features & kFlush);
  requests_.resize(transport.has_queue(0) ? transport.queue(0).size() : 0);
  return {};
}

std::vector<uint16_t> Block::in_flight() const {
  std::vector<uint16_t> heads;
  for (const auto& request : requests_) {
    if (request && request->busy) heads.push_back(request->chain.head);
  }
  return heads;
}

Result<void> Block::process(uint16_t /*queue*/) {
  auto taken = take_requests();
  if (taken) taken = finish_complete();
  // Also after an error: what was prepared before it must come to its end.
  TRY(disk_->submit());
  TRY(taken);
  if (std::exchange(interrupt_, false)) TRY(transport_->interrupt(0));
  return {};
}

// At most a queue's worth at a time, so that a driver that never stops adding cannot keep the loop
// and the lock for itself.
Result<void> Block::take_requests() {
  Virtqueue& queue = transport_->queue(0);
  more_waiting_ = false;
  TRY(queue.disable_kicks());
  for (unsigned taken = 0; taken < queue.size();) {
    TRY_ASSIGN(bool popped, queue.pop(next_chain_));
    if (!popped) {
      TRY_ASSIGN(bool more, queue.enable_kicks());
      if (!more) return {};
      continue;
    }
    ++taken;
    TRY(start_next());
  }
  more_waiting_ = true;
  disk_->wake();
  return {};
}

// Of next_chain_.
Result<void> Block::start_next() {
  auto& request = requests_.at(next_chain_.head);
  if (!request) request = std::make_unique<Request>();
  if (request->busy) return fail(fmt::format("descriptor {} is in use", next_chain_.head));
  std::swap(request->chain, next_chain_);
  return start(*request);
}

Result<void> Block::start(Request& request) {
  BlockLimits limits{disk_->size() / kSectorBytes, disk_->read_only(), disk_->can_discard(),
                     !disk_->read_only()};
  TRY_ASSIGN(BlockStatus status,
             parse_block_request(transport_->memory(), request.chain, limits, request.parsed));
  request.busy = true;
  request.bytes_in = 0;
  if (status != BlockStatus::kOk) return finish(request, status);
  vmm::GuestMemory& memory = transport_->memory();
  uint64_t length = request.parsed.length;
  request.durable = write_through_ && request.parsed.type != BlockRequest::Type::kRead;
  request.offset = request.parsed.offset;
  request.memory.clear();
  request.ranges.clear();
  switch (request.parsed.type) {
    case BlockRequest::Type::kRead:
      request.type = Disk::Request::Type::kRead;
      TRY(append_iovecs(memory, request.chain.writable, 0, length, request.memory));
      break;
    case BlockRequest::Type::kWrite:
      request.type = Disk::Request::Type::kWrite;
      TRY(append_iovecs(memory, request.chain.readable, kBlockHeaderBytes, length, request.memory));
      break;
    case BlockRequest::Type::kGetId:
      return give_id(request);
    case BlockRequest::Type::kFlush:
      request.type = Disk::Request::Type::kFlush;
      break;
    case BlockRequest::Type::kDiscard:
      request.type = Disk::Request::Type::kDiscard;
      request.ranges.swap(request.parsed.ranges);
      break;
    case BlockRequest::Type::kWriteZeroes:
      request.type = Disk::Request::Type::kWriteZeroes;
      request.ranges.swap(request.parsed.ranges);
      break;
  }
  disk_->start(request);
  return {};
}

Result<void> Block::give_id(Request& request) {
  auto bytes = std::as_bytes(std::span(serial_));
  TRY_ASSIGN(request.bytes_in,
             write_chain(transport_->memory(), request.chain, 0,
                         bytes.first(std::min<uint64_t>(bytes.size(), request.parsed.length))));
  return finish(request, BlockStatus::kOk);
}

Result<void> Block::on_event() {
  disk_->acknowledge();
  if (resetting_) {
    while (disk_->next_completion()) {
    }
    TRY(disk_->submit());
    if (disk_->in_flight() == 0) end_reset();
    return {};
  }
  if (more_waiting_) return process(0);
  auto finished = finish_complete();
  TRY(disk_->submit());
  TRY(finished);
  if (std::exchange(interrupt_, false)) TRY(transport_->interrupt(0));
  return {};
}

Result<void> Block::finish_complete() {
  while (auto* complete = disk_->next_completion()) {
    BlockStatus status = complete->error == 0            ? BlockStatus::kOk
                         : complete->error == EOPNOTSUPP ? BlockStatus::kUnsupported
                                                         : BlockStatus::kIoError;
    TRY(finish(static_cast<Request&>(*complete), status));
  }
  return {};
}

Result<void> Block::finish(Request& request, BlockStatus status) {
  uint64_t writable = request.chain.writable_bytes();
  if (request.parsed.type == BlockRequest::Type::kRead && status == BlockStatus::kOk) {
    request.bytes_in = request.parsed.length;
  }
  auto byte = static_cast<std::byte>(status);
  TRY(write_chain(transport_->memory(), request.chain, writable - 1, {&byte, 1}));
  // The used length counts from the first byte without a gap (2.7.8.2), so it ends before the
  // status where the data is not complete.
  uint64_t written = request.bytes_in == writable - 1 ? writable : request.bytes_in;
  uint16_t head = request.chain.head;
  count(request, status);
  release(request);
  interrupt_ = true;
  return transport_->queue(0).push(head, static_cast<uint32_t>(written));
}

void Block::count(const Request& request, BlockStatus status) {
  auto add = [](std::atomic<uint64_t>& counter, uint64_t n) {
    counter.fetch_add(n, std::memory_order_relaxed);
  };
  if (status != BlockStatus::kOk) return add(counters_.errors, 1);
  switch (request.parsed.type) {
    case BlockRequest::Type::kRead:
      add(counters_.reads, 1);
      add(counters_.read_bytes, request.parsed.length);
      break;
    case BlockRequest::Type::kWrite:
      add(counters_.writes, 1);
      add(counters_.written_bytes, request.parsed.length);
      break;
    case BlockRequest::Type::kFlush:
      add(counters_.flushes, 1);
      break;
    case BlockRequest::Type::kDiscard:
      add(counters_.discards, 1);
      break;
    case BlockRequest::Type::kWriteZeroes:
      add(counters_.write_zeroes, 1);
      break;
    case BlockRequest::Type::kGetId:
      break;
  }
}

// Ends a request, answered or not. A read has put data into guest memory in both cases, and maybe
// part of it where it failed.
void Block::release(Request& request) {
  if (request.parsed.type == BlockRequest::Type::kRead) {
    mark_dirty(transport_->memory(), request.chain.writable, request.parsed.length);
  }
  request.busy = false;
}

bool Block::reset() {
  more_waiting_ = false;
  interrupt_ = false;
  if (disk_->in_flight() == 0) {
    leave_transport();
    return true;
  }
  resetting_ = true;
  // Completions may have been left behind, after an error too, that were announced already.
  disk_->wake();
  return false;
}

void Block::end_reset() {
  resetting_ = false;
  Transport& transport = *transport_;
  leave_transport();
  transport.reset_complete();
}

void Block::leave_transport() {
  for (auto& request : requests_) {
    if (request && request->busy) release(*request);
  }
  transport_->unwatch(disk_->event_fd());
  transport_ = nullptr;
}

}  // namespace virtio
