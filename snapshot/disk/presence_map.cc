#include "snapshot/disk/presence_map.h"

#include <cassert>

namespace snapshot {

PresenceMap::Block PresenceMap::get(uint64_t block) const {
  const Group& group = groups_[block / kGroupBlocks];
  if (!group.leaf) return {group.zero ? Presence::kZero : Presence::kAbsent, 0};
  uint64_t i = block % kGroupBlocks, bit = uint64_t{1} << (i % 64);
  if (group.leaf->data[i / 64] & bit) return {Presence::kData, group.leaf->hashes[i]};
  return {group.leaf->zero[i / 64] & bit ? Presence::kZero : Presence::kAbsent, 0};
}

PresenceMap::Leaf& PresenceMap::leaf(Group& group) {
  if (!group.leaf) {
    group.leaf = std::make_unique<Leaf>();
    if (group.zero) group.leaf->zero.fill(~uint64_t{0});
    group.zero = false;
  }
  return *group.leaf;
}

void PresenceMap::set_data(uint64_t block, PageHash hash) {
  assert(block < blocks_);
  Leaf& in = leaf(groups_[block / kGroupBlocks]);
  uint64_t i = block % kGroupBlocks, bit = uint64_t{1} << (i % 64);
  in.data[i / 64] |= bit;
  in.zero[i / 64] &= ~bit;
  in.hashes[i] = hash;
}

void PresenceMap::set_zero(uint64_t first, uint64_t count) {
  assert(first <= blocks_ && count <= blocks_ - first);
  while (count > 0) {
    Group& group = groups_[first / kGroupBlocks];
    uint64_t begin = first % kGroupBlocks, piece = std::min(count, kGroupBlocks - begin);
    if (piece == kGroupBlocks) {
      group.leaf.reset();
      group.zero = true;
    } else if (!group.zero) {
      Leaf& in = leaf(group);
      for (uint64_t i = begin; i < begin + piece; ++i) {
        uint64_t bit = uint64_t{1} << (i % 64);
        in.data[i / 64] &= ~bit;
        in.zero[i / 64] |= bit;
      }
    }
    first += piece;
    count -= piece;
  }
}

bool PresenceMap::has_data(uint64_t first, uint64_t count) const {
  uint64_t end = first + count;
  while (first < end) {
    uint64_t next = std::min(end, (first / kGroupBlocks + 1) * kGroupBlocks);
    if (groups_[first / kGroupBlocks].leaf) {
      for (; first < next; ++first) {
        if (get(first).state == Presence::kData) return true;
      }
    }
    first = next;
  }
  return false;
}

}  // namespace snapshot
