// Folds what a snapshot holds of a disk into the disk's base image, in place: the image then is the
// disk as it was at the snapshot.
//
// Everything is read and verified once before the first byte is written, so that damage is found in
// time. A power cut in the middle leaves an image that is neither old nor new, beside it a file
// IMAGE.folding that says so; the same call again completes it (the blocks still are in the store).
#pragma once

#include <cstdint>
#include <string>

#include "snapshot/progress.h"
#include "snapshot/store/snapshot.h"
#include "vmm/base/result.h"

namespace snapshot {

struct FoldReport {
  uint64_t written = 0, zeroed = 0;  // blocks
  bool resumed = false;              // a fold that was interrupted is complete now
};

// `store`: the store's uuid. `progress` can stop it as long as nothing is written.
base::Result<FoldReport> fold_disk(const Snapshot& snapshot, const Id& store, uint32_t disk,
                                   const std::string& base, const Progress& progress);

}  // namespace snapshot
