// `minivmm restore`: a machine from a snapshot, in this process.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cli/run_options.h"
#include "cli/snapshot_name.h"
#include "snapshot/store/store.h"
#include "vmm/base/result.h"
#include "vmm/guest_memory.h"
#include "vmm/vm_state.h"

namespace cli {

class CloneLink;

struct RestoreOptions {
  SnapshotName snapshot;
  // What the snapshot does not name: paths of its disks in their order, networks and sockets of the
  // host. Also name, API socket, log level and how further snapshots are taken.
  RunOptions host;
  std::string vsock_path;
  std::optional<uint32_t> vsock_cid = {};  // none: as the machine had
  bool eager = false;                      // all memory is read and checked before the guest runs
  bool paused = false;                     // the guest waits for `minivmm resume`
  bool report_json = false;
  vmm::ClockPolicy clock = vmm::ClockPolicy::kContinue;

  // Of clones (clones.h): the snapshot and the memory, where they are there already; where the
  // console's output goes, empty: nowhere; and who says when the guest may go on, and wants to know
  // that it does.
  std::shared_ptr<snapshot::Store> store = {};
  std::shared_ptr<const snapshot::Snapshot> from = {};
  vmm::GuestMemory::Backing memory = {};
  std::string console_file;
  CloneLink* link = nullptr;
};

// The exit status, as of run_machine(); success where a clone made ahead was not wanted.
base::Result<int> restore_machine(const RestoreOptions& options);

}  // namespace cli
