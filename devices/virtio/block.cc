#include "devices/virtio/block.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/epoll.h>

#include <algorithm>
#include <cerrno>

#include "devices/virtio/chain_io.h"

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
constexpr uint64_t kZeroesBytes = 1 << 20;

}  // namespace

Result<std::unique_ptr<Block>> Block::create(const Options& options) {
  TRY_ASSIGN(BlockFile file, BlockFile::open({options.path, options.read_only, options.access}));
  return create(std::move(file), options.id, options.serial);
}

Result<std::unique_ptr<Block>> Block::create(BlockFile file, std::string id,
                                             const std::string& serial) {
  TRY_ASSIGN(auto ring, base::IoUring::create(kQueueSize));
  TRY_ASSIGN(base::Mapping zeroes, base::Mapping::anonymous(kZeroesBytes));
  return std::unique_ptr<Block>(
      new Block(std::move(file), std::move(id), serial, std::move(zeroes), std::move(ring)));
}

Block::Block(BlockFile file, std::string id, const std::string& serial, base::Mapping zeroes,
             std::unique_ptr<base::IoUring> ring)
    : id_(std::move(id)),
      file_(std::move(file)),
      zeroes_(std::move(zeroes)),
      ring_(std::move(ring)) {
  const std::string& shown = serial.empty() ? id_ : serial;
  std::copy_n(shown.begin(), std::min(shown.size(), serial_.size()), serial_.begin());
}

uint64_t Block::features() const {
  uint64_t features = kSegMax | kBlkSize | kFlush | kTopology;
  if (file_.read_only()) return features | kReadOnly;
  return features | kWriteZeroes | (file_.can_punch() ? kDiscard : 0);
}

void Block::read_config(uint32_t offset, std::span<uint8_t> data) const {
  Config config{};
  config.capacity = file_.size() / kSectorBytes;
  config.seg_max = kQueueSize - 2;  // header and status take a descriptor each
  config.blk_size = kSectorBytes;
  config.physical_block_exp = kPhysicalBlockExponent;
  config.min_io_size = kSectorsInBlock;
  config.num_queues = 1;
  config.max_discard_sectors = config.max_write_zeroes_sectors = kMaxRangeSectors;
  config.max_discard_seg = config.max_write_zeroes_seg = kMaxBlockRanges;
  config.discard_sector_alignment = kSectorsInBlock;
  config.write_zeroes_may_unmap = file_.can_punch();
  read_config_bytes({reinterpret_cast<const uint8_t*>(&config), sizeof config}, offset, data);
}

Result<void> Block::activate(Transport& transport, uint64_t features) {
  transport_ = &transport;
  TRY(transport.watch(ring_->event().fd(), EPOLLIN, [this](uint32_t) { return on_event(); }));
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
  // Also after an error: what was prepared before it must come to its end.
  TRY(ring_->submit());
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
  ring_->event().signal();
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
  BlockLimits limits{file_.size() / kSectorBytes, file_.read_only(), file_.can_punch(),
                     !file_.read_only()};
  TRY_ASSIGN(BlockStatus status,
             parse_block_request(transport_->memory(), request.chain, limits, request.parsed));
  request.busy = true;
  request.range = 0;
  request.zeroed = 0;
  request.bytes_in = 0;
  request.durable = true;
  if (status != BlockStatus::kOk) return finish(request, status);
  switch (request.parsed.type) {
    case BlockRequest::Type::kRead:
    case BlockRequest::Type::kWrite:
      TRY(begin_transfer(request));
      break;
    case BlockRequest::Type::kGetId:
      return give_id(request);
    case BlockRequest::Type::kFlush:
      request.durable = false;
      break;
    case BlockRequest::Type::kDiscard:
    case BlockRequest::Type::kWriteZeroes:
      request.durable = !write_through_;
      break;
  }
  return advance(request);
}

Result<void> Block::begin_transfer(Request& request) {
  const BlockRequest& parsed = request.parsed;
  bool read = parsed.type == BlockRequest::Type::kRead;
  request.durable = read || !write_through_;
  return request.transfer.begin(
      read ? BlockTransfer::Direction::kFromDisk : BlockTransfer::Direction::kToDisk,
      transport_->memory(), read ? request.chain.writable : request.chain.readable,
      read ? 0 : kBlockHeaderBytes, parsed.length, parsed.offset,
      file_.direct() ? kSectorBytes : 1);
}

Result<void> Block::give_id(Request& request) {
  auto bytes = std::as_bytes(std::span(serial_));
  TRY_ASSIGN(request.bytes_in,
             write_chain(transport_->memory(), request.chain, 0,
                         bytes.first(std::min<uint64_t>(bytes.size(), request.parsed.length))));
  return finish(request, BlockStatus::kOk);
}

// Prepares the next operation of the request, or answers it where there is none.
Result<void> Block::advance(Request& request) {
  const BlockRequest& parsed = request.parsed;
  switch (parsed.type) {
    case BlockRequest::Type::kRead:
    case BlockRequest::Type::kWrite:
      if (request.transfer.remaining() > 0) return prepare_transfer(request);
      break;
    case BlockRequest::Type::kDiscard:
    case BlockRequest::Type::kWriteZeroes:
      if (request.range < parsed.ranges.size()) return prepare_range(request);
      break;
    case BlockRequest::Type::kFlush:
    case BlockRequest::Type::kGetId:
      break;
  }
  if (!request.durable) {
    // Covers every write that was complete when the flush was taken, which is all a driver may
    // count on (5.2.6.2): those in flight beside it make no difference.
    request.step = Request::Step::kSync;
    return ring_->prepare_fdatasync(request, file_.fd());
  }
  return finish(request, BlockStatus::kOk);
}

Result<void> Block::prepare_transfer(Request& request) {
  request.step = Request::Step::kTransfer;
  auto vectors = request.transfer.next();
  uint64_t offset = request.transfer.offset();
  if (request.parsed.type == BlockRequest::Type::kRead) {
    return ring_->prepare_readv(request, file_.fd(), vectors, offset);
  }
  return ring_->prepare_writev(request, file_.fd(), vectors, offset);
}

// Gives space back, or zeroes it; by writing zeroes where the file can do neither. On a block
// device fallocate(2) does what BLKDISCARD and BLKZEROOUT do, and io_uring knows it.
Result<void> Block::prepare_range(Request& request) {
  const BlockRange& range = request.parsed.ranges[request.range];
  bool discard = request.parsed.type == BlockRequest::Type::kDiscard;
  request.step = Request::Step::kAllocate;
  if (discard || (range.unmap && punch_works_)) {
    return ring_->prepare_fallocate(request, file_.fd(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                    range.offset, range.length);
  }
  if (zero_range_works_) {
    return ring_->prepare_fallocate(request, file_.fd(), FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
                                    range.offset, range.length);
  }
  request.step = Request::Step::kZeroes;
  request.zeroes = {zeroes_.data(), std::min(range.length - request.zeroed, zeroes_.size())};
  return ring_->prepare_writev(request, file_.fd(), {&request.zeroes, 1},
                               range.offset + request.zeroed);
}

Result<void> Block::on_event() {
  ring_->event().consume();
  while (auto* operation = ring_->next_completion()) {
    if (!resetting_) TRY(complete(static_cast<Request&>(*operation)));
  }
  if (resetting_) {
    TRY(ring_->submit());
    if (ring_->in_flight() == 0) end_reset();
    return {};
  }
  if (more_waiting_) return process(0);
  TRY(ring_->submit());
  if (std::exchange(interrupt_, false)) TRY(transport_->interrupt(0));
  return {};
}

Result<void> Block::complete(Request& request) {
  int result = request.result();
  if (result == -EINTR || result == -EAGAIN) return advance(request);
  if (result < 0) return fail_step(request, -result);
  switch (request.step) {
    case Request::Step::kTransfer:
      if (result == 0) return finish(request, BlockStatus::kIoError);  // the file became shorter
      request.transfer.completed(static_cast<uint64_t>(result));
      break;
    case Request::Step::kAllocate:
      ++request.range;
      break;
    case Request::Step::kZeroes:
      if (result == 0) return finish(request, BlockStatus::kIoError);
      request.zeroed += static_cast<uint64_t>(result);
      if (request.zeroed == request.parsed.ranges[request.range].length) {
        ++request.range;
        request.zeroed = 0;
      }
      break;
    case Request::Step::kSync:
      request.durable = true;
      break;
  }
  return advance(request);
}

Result<void> Block::fail_step(Request& request, int os_error) {
  bool unsupported = os_error == EOPNOTSUPP && request.step == Request::Step::kAllocate;
  if (!unsupported) return finish(request, BlockStatus::kIoError);
  if (request.parsed.type == BlockRequest::Type::kDiscard) {
    return finish(request, BlockStatus::kUnsupported);
  }
  if (request.parsed.ranges[request.range].unmap && punch_works_) {
    punch_works_ = false;
  } else {
    zero_range_works_ = false;
  }
  return advance(request);
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
  request.transfer.end();
  request.busy = false;
}

bool Block::reset() {
  more_waiting_ = false;
  interrupt_ = false;
  if (ring_->in_flight() == 0) {
    leave_transport();
    return true;
  }
  resetting_ = true;
  // An error may have left completions behind that were announced already.
  ring_->event().signal();
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
  transport_->unwatch(ring_->event().fd());
  transport_ = nullptr;
}

}  // namespace virtio
