#include "snapshot/store/run.h"

namespace snapshot {

uint32_t run_head_blocks(uint32_t slots) {
  const uint64_t bytes = kRunHeaderBytes + uint64_t{slots} * kSlotRecordBytes;
  return static_cast<uint32_t>((bytes + kBlockBytes - 1) / kBlockBytes);
}

RunShape RunShape::of(RunInfo::Kind kind, uint64_t entries, uint32_t head_blocks) {
  RunShape shape;
  const uint64_t per_leaf = kind == RunInfo::Kind::kFlat ? kFlatRecords : kDeltaRecords;
  uint64_t count = (entries + per_leaf - 1) / per_leaf;
  shape.blocks = head_blocks;
  while (true) {
    shape.level_blocks.push_back(count);
    shape.level_start.push_back(shape.blocks);
    shape.blocks += count;
    if (count <= 1) return shape;
    count = (count + kNodeRecords - 1) / kNodeRecords;
  }
}

}  // namespace snapshot
