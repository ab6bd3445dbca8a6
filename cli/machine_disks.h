// The disks of a machine in this process: plain files, or layers over them where snapshots are to
// hold what the guest writes.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "cli/run_options.h"
#include "devices/platform.h"
#include "snapshot/disk/layered_disk.h"
#include "snapshot/store/store.h"
#include "vmm/base/result.h"

namespace cli {

struct MachineDisks {
  std::vector<virtio::Block::Options> devices;  // for the platform, in order
  std::vector<snapshot::LayeredDisk*> layered;  // by disk; null: a plain file
  std::vector<snapshot::Disk> described;        // for manifests
};

// `on_full`: a disk's file system has no space; the word is to be passed on.
using OnDiskFull = std::function<void(const std::string& message)>;

// Of a machine that boots. Without a store its disks are plain files.
base::Result<MachineDisks> open_disks(const RunOptions& options, snapshot::Store* store,
                                      const OnDiskFull& on_full);
// Of a restored one: each base image must be the one the snapshot was taken over; what the guest
// writes goes to new layers of `branch`.
base::Result<MachineDisks> open_restored_disks(
    const RunOptions& options, snapshot::Store& store,
    const std::shared_ptr<const snapshot::Snapshot>& snapshot, snapshot::Branch& branch,
    const OnDiskFull& on_full);

}  // namespace cli
