// Aligned memory for blocks on their way: a bounded number of buffers, made when needed, most of
// them given back when the disk is idle.
//
// Owned by a layered disk, under its lock.
#pragma once

#include <cstddef>
#include <memory>
#include <new>
#include <vector>

#include "snapshot/types.h"

namespace snapshot {

class BlockBuffers {
  struct Delete {
    void operator()(std::byte* memory) const {
      ::operator delete[](memory, std::align_val_t{kPageBytes});
    }
  };

 public:
  static constexpr uint64_t kBytes = 128 << 10;  // of a buffer
  static constexpr uint64_t kBlocks = kBytes / kPageBytes;
  static constexpr unsigned kMost = 64;
  using Buffer = std::unique_ptr<std::byte[], Delete>;

  bool available() const { return out_ < kMost; }
  Buffer take() {
    ++out_;
    if (free_.empty()) {
      return Buffer(new (std::align_val_t{kPageBytes}) std::byte[kBytes]);
    }
    Buffer buffer = std::move(free_.back());
    free_.pop_back();
    return buffer;
  }
  void give_back(Buffer buffer) {
    --out_;
    free_.push_back(std::move(buffer));
  }
  void trim() {
    if (free_.size() > 2) free_.resize(2);
  }

 private:
  unsigned out_ = 0;
  std::vector<Buffer> free_;
};

}  // namespace snapshot
