// `minivmm restore --clones N`: many machines that begin at one snapshot. Their memory is read and
// checked once, into a template that all of them map; each clone is a process of its own, with its
// own name, branch of the store, layers of the disks and identity (VM generation ID). This process
// stays until the last one ended (clone_set.h).
//
//   this process ── template ──┬── NAME-1   a restored machine like any other
//                              ├── NAME-2
//                              └── …
#pragma once

#include <cstdint>

#include "cli/restore.h"
#include "vmm/base/result.h"

namespace cli {

inline constexpr uint32_t kMostClones = 4096;

// Called while the process has one thread. `made_ahead`: the clones wait, with everything there but
// the guest's state, and each line of stdin starts one. The exit status, in this process: that of
// CloneSet::stay(); in a clone: its own, as of restore_machine().
base::Result<int> restore_clones(const RestoreOptions& asked, uint32_t count, bool made_ahead);

// What clone `number`, from 1, has for itself: "NAME-3"; '%' in the vsock's path, in the console's
// file and in a tap's name is its number; forwarded host ports, MAC addresses and the vsock's CID
// count on from the ones given.
base::Result<RestoreOptions> options_of_clone(const RestoreOptions& asked, uint32_t number);

}  // namespace cli
