// What differs between two snapshots: pages of RAM, blocks of disks. Only the indexes are read:
// equal hashes are equal content, and a block of the base image is compared as "in the base".
//
// Any thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "snapshot/progress.h"
#include "snapshot/store/snapshot.h"
#include "vmm/base/result.h"

namespace snapshot {

struct PageRange {
  uint64_t first = 0, count = 0;
  bool operator==(const PageRange&) const = default;
};

struct SpaceDifference {
  Space space = kRamSpace;
  uint64_t pages_before = 0, pages_after = 0;  // of the whole space; 0 where it is not there
  uint64_t changed = 0;                        // content before, other content after
  uint64_t appeared = 0;                       // zero before
  uint64_t vanished = 0;                       // zero after
  std::vector<PageRange> ranges;               // of all three, ascending, maximal

  uint64_t differing() const { return changed + appeared + vanished; }
};

// One entry for each space that either has: RAM first, then disks.
base::Result<std::vector<SpaceDifference>> diff(const Snapshot& before, const Snapshot& after,
                                                const Progress& progress);

}  // namespace snapshot
