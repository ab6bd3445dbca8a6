// The part of a committed snapshot that a running disk stands on: one page space, verified.
#pragma once

#include <memory>
#include <span>

#include "snapshot/storage.h"
#include "snapshot/store/snapshot.h"
#include "snapshot/types.h"

namespace snapshot {

// Shared by the disk and its reads in flight; any thread.
class CommittedBlocks {
 public:
  virtual ~CommittedBlocks() = default;
  // In a file, or kSlotZero, or kSlotBase.
  virtual base::Result<PageEntry> find(uint64_t block) const = 0;
  // Blocks [first, first + into.size()), in less time than one by one.
  virtual base::Result<void> find_range(uint64_t first, std::span<PageEntry> into) const = 0;
  virtual base::Result<std::shared_ptr<File>> file(Slot slot) const = 0;
  // Is `content` what was committed? The error names file and offset.
  virtual base::Result<void> check(const PageEntry& entry,
                                   std::span<const std::byte> content) const = 0;
};

std::shared_ptr<const CommittedBlocks> committed_blocks(std::shared_ptr<const Snapshot> snapshot,
                                                        Space space);

}  // namespace snapshot
