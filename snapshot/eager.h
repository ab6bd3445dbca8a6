// Guest memory filled from a snapshot before anything runs: every page is read by large reads,
// several at once, straight to its place and checked there.
//
// Called by the owner of a machine that has not started.
#pragma once

#include "snapshot/store/store.h"
#include "vmm/base/result.h"
#include "vmm/guest_memory.h"

namespace snapshot {

// Does the memory have the regions the snapshot was taken of?
base::Result<void> check_memory(const vmm::GuestMemory& memory, const Snapshot& snapshot);

// `memory` is all zero. An error names the file and page that is damaged.
base::Result<void> fill_memory(vmm::GuestMemory& memory, Store& store, const Snapshot& snapshot);

}  // namespace snapshot
