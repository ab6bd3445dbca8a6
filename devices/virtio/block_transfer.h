// The data of one read or write request, from the first byte to the last: which host vectors the
// next operation takes, what is left after it moved fewer bytes than asked for, and a bounded
// aligned copy where direct access cannot use the guest's buffers as they are.
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <memory>
#include <new>
#include <span>
#include <vector>

namespace virtio {

class BlockTransfer {
 public:
  enum class Direction { kFromDisk, kToDisk };

  // All of `vectors`, which are taken, from or to `offset` of the disk. `alignment`: what every
  // vector must begin and end on, 1 where anything goes.
  void begin(Direction direction, std::vector<iovec>& vectors, uint64_t offset, uint64_t alignment);

  uint64_t remaining() const { return remaining_; }
  uint64_t offset() const { return offset_; }  // bytes, where the next operation starts
  // The vectors of the next operation; they stay valid until completed() or end().
  std::span<const iovec> next();
  // The operation moved `bytes`, at most what next() asked for.
  void completed(uint64_t bytes);
  void end();

 private:
  void trim(uint64_t bytes);
  std::span<std::byte> bounce();

  static constexpr std::align_val_t kBounceAlignment{4096};
  struct BounceDelete {
    void operator()(std::byte* memory) const { ::operator delete[](memory, kBounceAlignment); }
  };

  Direction direction_ = Direction::kFromDisk;
  uint64_t remaining_ = 0;
  uint64_t offset_ = 0;
  std::vector<iovec> vectors_;  // those before first_ are done
  size_t first_ = 0;
  bool bounced_ = false;
  std::unique_ptr<std::byte[], BounceDelete> bounce_;
  iovec bounce_vector_{};
};

}  // namespace virtio
