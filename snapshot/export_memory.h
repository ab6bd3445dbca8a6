// The RAM of a snapshot as files for other tools: flat memory, and an ELF core (core_file.h). Both
// are sparse: zero pages are holes.
//
// Any thread; nothing is left where it fails or is stopped (output_file.h).
#pragma once

#include <span>
#include <string>

#include "snapshot/core_file.h"
#include "snapshot/output_file.h"
#include "snapshot/progress.h"
#include "snapshot/store/snapshot.h"
#include "vmm/base/result.h"

namespace snapshot {

// Offset in the file = guest-physical address; the hole below 4 GiB is a hole.
base::Result<void> export_memory(const Snapshot& snapshot, const std::string& path,
                                 OutputFile::Existing existing, const Progress& progress);

// ET_CORE with the registers of `cpus`.
base::Result<void> export_core(const Snapshot& snapshot, std::span<const CoreCpu> cpus,
                               const std::string& path, OutputFile::Existing existing,
                               const Progress& progress);

}  // namespace snapshot
