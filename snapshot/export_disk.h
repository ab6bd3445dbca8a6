// A disk of a snapshot, or of a machine that ended, as a raw image: what the store holds of it over
// its base image. Sparse: blocks of zeros are holes.
//
// Any thread; nothing is left where it fails or is stopped (output_file.h).
#pragma once

#include <cstdint>
#include <string>

#include "snapshot/output_file.h"
#include "snapshot/progress.h"
#include "snapshot/store/snapshot.h"
#include "snapshot/store/store.h"
#include "vmm/base/result.h"

namespace snapshot {

// `base`: the path of the base image, empty where none is given; needed, and then checked to be the
// snapshot's, where blocks of the disk are in it.
base::Result<void> export_disk(const Snapshot& snapshot, uint32_t disk, const std::string& base,
                               const std::string& path, OutputFile::Existing existing,
                               const Progress& progress);

// The disk of a machine that is gone, as of its last flush or later: what the guest wrote after its
// last snapshot lies over that snapshot's content. `branch` is one whose machine does not run.
// Where its first snapshot came to no end, what was written since that one's pause lies over the
// base image as it is now, which nothing is known of to check it by.
base::Result<void> export_disk_of_head(const Store& store, const HeadInfo& branch, uint32_t disk,
                                       const std::string& base, const std::string& path,
                                       OutputFile::Existing existing, const Progress& progress);

}  // namespace snapshot
