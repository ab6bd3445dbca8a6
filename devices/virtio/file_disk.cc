#include "devices/virtio/file_disk.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>

namespace virtio {

using base::Result;

namespace {

constexpr uint64_t kZeroesBytes = 1 << 20;
constexpr unsigned kRingEntries = 256;

}  // namespace

Result<std::unique_ptr<FileDisk>> FileDisk::create(BlockFile file) {
  TRY_ASSIGN(auto ring, base::IoUring::create(kRingEntries));
  TRY_ASSIGN(base::Mapping zeroes, base::Mapping::anonymous(kZeroesBytes));
  return std::unique_ptr<FileDisk>(
      new FileDisk(std::move(file), std::move(zeroes), std::move(ring)));
}

FileDisk::FileDisk(BlockFile file, base::Mapping zeroes, std::unique_ptr<base::IoUring> ring)
    : file_(std::move(file)), zeroes_(std::move(zeroes)), ring_(std::move(ring)) {}

void FileDisk::start(Request& request) {
  if (idle_.empty()) idle_.push_back(flights_.emplace_back(std::make_unique<Flight>()).get());
  Flight& flight = *idle_.back();
  idle_.pop_back();
  ++in_flight_;
  flight.request = &request;
  flight.range = 0;
  flight.zeroed = 0;
  flight.durable = !request.durable;
  switch (request.type) {
    case Request::Type::kRead:
    case Request::Type::kWrite:
      flight.transfer.begin(request.type == Request::Type::kRead
                                ? BlockTransfer::Direction::kFromDisk
                                : BlockTransfer::Direction::kToDisk,
                            request.memory, request.offset, file_.direct() ? kSectorBytes : 1);
      break;
    case Request::Type::kFlush:
      flight.durable = false;
      break;
    case Request::Type::kDiscard:
    case Request::Type::kWriteZeroes:
      break;
  }
  advance(flight);
}

// Prepares the next operation, or ends the request where there is none.
void FileDisk::advance(Flight& flight) {
  auto prepared = prepare(flight);
  if (!prepared) return finish(flight, EIO);
  if (!*prepared) finish(flight, 0);
}

Result<bool> FileDisk::prepare(Flight& flight) {
  const Request& request = *flight.request;
  if (flight.transfer.remaining() > 0) {
    TRY(prepare_transfer(flight));
    return true;
  }
  if (flight.range < request.ranges.size()) {
    TRY(prepare_range(flight));
    return true;
  }
  if (flight.durable) return false;
  // Covers every write that was complete when the flush was taken, which is all a driver may count
  // on (virtio 1.2, 5.2.6.2): those in flight beside it make no difference.
  flight.step = Flight::Step::kSync;
  TRY(ring_->prepare_fdatasync(flight, file_.fd()));
  return true;
}

Result<void> FileDisk::prepare_transfer(Flight& flight) {
  flight.step = Flight::Step::kTransfer;
  auto vectors = flight.transfer.next();
  uint64_t offset = flight.transfer.offset();
  if (flight.request->type == Request::Type::kRead) {
    return ring_->prepare_readv(flight, file_.fd(), vectors, offset);
  }
  return ring_->prepare_writev(flight, file_.fd(), vectors, offset);
}

// Gives space back, or zeroes it; by writing zeroes where the file can do neither. On a block
// device fallocate(2) does what BLKDISCARD and BLKZEROOUT do, and io_uring knows it.
Result<void> FileDisk::prepare_range(Flight& flight) {
  const DiskRange& range = flight.request->ranges[flight.range];
  bool discard = flight.request->type == Request::Type::kDiscard;
  flight.step = Flight::Step::kAllocate;
  if (discard || (range.unmap && punch_works_)) {
    return ring_->prepare_fallocate(flight, file_.fd(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                    range.offset, range.length);
  }
  if (zero_range_works_) {
    return ring_->prepare_fallocate(flight, file_.fd(), FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
                                    range.offset, range.length);
  }
  flight.step = Flight::Step::kZeroes;
  flight.zeroes = {zeroes_.data(), std::min(range.length - flight.zeroed, zeroes_.size())};
  return ring_->prepare_writev(flight, file_.fd(), {&flight.zeroes, 1},
                               range.offset + flight.zeroed);
}

Disk::Request* FileDisk::next_completion() {
  while (done_.empty()) {
    auto* operation = ring_->next_completion();
    if (!operation) return nullptr;
    complete(static_cast<Flight&>(*operation));
  }
  Request* request = done_.front();
  done_.pop_front();
  --in_flight_;
  return request;
}

void FileDisk::complete(Flight& flight) {
  int result = flight.result();
  if (result == -EINTR || result == -EAGAIN) return advance(flight);
  if (result < 0) return fail_step(flight, -result);
  switch (flight.step) {
    case Flight::Step::kTransfer:
      if (result == 0) return finish(flight, EIO);  // the file became shorter
      flight.transfer.completed(static_cast<uint64_t>(result));
      break;
    case Flight::Step::kAllocate:
      ++flight.range;
      break;
    case Flight::Step::kZeroes:
      if (result == 0) return finish(flight, EIO);
      flight.zeroed += static_cast<uint64_t>(result);
      if (flight.zeroed == flight.request->ranges[flight.range].length) {
        ++flight.range;
        flight.zeroed = 0;
      }
      break;
    case Flight::Step::kSync:
      flight.durable = true;
      break;
  }
  advance(flight);
}

void FileDisk::fail_step(Flight& flight, int os_error) {
  bool unsupported = os_error == EOPNOTSUPP && flight.step == Flight::Step::kAllocate;
  if (!unsupported || flight.request->type == Request::Type::kDiscard) {
    return finish(flight, os_error);
  }
  if (flight.request->ranges[flight.range].unmap && punch_works_) {
    punch_works_ = false;
  } else {
    zero_range_works_ = false;
  }
  advance(flight);
}

void FileDisk::finish(Flight& flight, int error) {
  flight.transfer.end();
  flight.request->error = error;
  done_.push_back(flight.request);
  flight.request = nullptr;
  idle_.push_back(&flight);
}

}  // namespace virtio
