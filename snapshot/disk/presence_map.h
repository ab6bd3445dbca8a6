// Which blocks of a disk a layer holds, and the hash of each: two levels, the second one made where
// something was written. 4.2 KiB of memory for each 2 MiB that hold data, none for ranges that are
// absent or zero as a whole.
//
// Owned by a layer, which guards it.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "snapshot/types.h"

namespace snapshot {

enum class Presence : uint8_t {
  kAbsent = 0,  // what is below decides
  kData = 1,    // in the layer's file, at the block's own offset
  kZero = 2,    // zero, whatever the file says there
};

class PresenceMap {
 public:
  struct Block {
    Presence state = Presence::kAbsent;
    PageHash hash = 0;  // of data
  };

  explicit PresenceMap(uint64_t blocks)
      : blocks_(blocks), groups_((blocks + kGroupBlocks - 1) / kGroupBlocks) {}

  uint64_t blocks() const { return blocks_; }
  Block get(uint64_t block) const;
  void set_data(uint64_t block, PageHash hash);
  void set_zero(uint64_t first, uint64_t count);
  // Is any block of the range kData?
  bool has_data(uint64_t first, uint64_t count) const;

  // Calls visit(block, Block) for each that is not absent, in ascending order.
  template <typename Visit>
  void for_each(Visit visit) const {
    for (uint64_t i = 0; i < groups_.size(); ++i) {
      if (!groups_[i].leaf && !groups_[i].zero) continue;
      uint64_t end = std::min(blocks_, (i + 1) * kGroupBlocks);
      for (uint64_t block = i * kGroupBlocks; block < end; ++block) {
        if (Block found = get(block); found.state != Presence::kAbsent) visit(block, found);
      }
    }
  }

 private:
  static constexpr uint64_t kGroupBlocks = 512;
  struct Leaf {
    std::array<PageHash, kGroupBlocks> hashes{};
    std::array<uint64_t, kGroupBlocks / 64> data{}, zero{};  // a bit for each block
  };
  struct Group {
    std::unique_ptr<Leaf> leaf;
    bool zero = false;  // all of it; there is no leaf then
  };
  Leaf& leaf(Group& group);

  uint64_t blocks_;
  std::vector<Group> groups_;
};

}  // namespace snapshot
