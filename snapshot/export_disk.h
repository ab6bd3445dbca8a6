// A disk of a snapshot as a raw image: what the snapshot holds of it over its base image. Sparse:
// blocks of zeros are holes.
//
// Any thread; nothing is left where it fails or is stopped (output_file.h).
#pragma once

#include <cstdint>
#include <string>

#include "snapshot/output_file.h"
#include "snapshot/progress.h"
#include "snapshot/store/snapshot.h"
#include "vmm/base/result.h"

namespace snapshot {

// `base`: the path of the base image, empty where none is given; needed, and then checked to be the
// snapshot's, where blocks of the disk are in it.
base::Result<void> export_disk(const Snapshot& snapshot, uint32_t disk, const std::string& base,
                               const std::string& path, OutputFile::Existing existing,
                               const Progress& progress);

}  // namespace snapshot
