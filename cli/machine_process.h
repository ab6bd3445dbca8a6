// A machine with everything that serves it in this process, whether it was booted (run.h) or
// restored (restore.h), and the time the main thread spends with it.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "cli/control_server.h"
#include "cli/foreground.h"
#include "cli/guest_console.h"
#include "cli/machine_disks.h"
#include "cli/running_machine.h"
#include "devices/platform.h"
#include "snapshot/pager.h"
#include "snapshot/service.h"
#include "vmm/base/result.h"
#include "vmm/base/unix_socket.h"
#include "vmm/machine.h"

namespace cli {

// Brings the word that a disk's file system is full from the disks, which are there first, to who
// takes snapshots and pauses the machine. Any thread, with any lock held.
class DiskFullRelay {
 public:
  void operator()(const std::string& message);
  // Null: nobody any more. A word that came before is passed on now.
  void attach(snapshot::SnapshotService* to);
  bool told() const;

 private:
  mutable std::mutex mutex_;
  snapshot::SnapshotService* to_ = nullptr;
  std::optional<std::string> message_;
};

// Each part uses those above it, so they are destroyed from below: first nobody asks any more, then
// no snapshot is being taken, then no vCPU calls a device, then nobody waits for a page.
struct MachineProcess {
  DiskFullRelay disk_full;
  std::unique_ptr<GuestConsole> console;
  std::shared_ptr<snapshot::Store> store;  // null: none yet
  std::unique_ptr<vmm::Machine> machine;
  // The machine's place in the store, until serve() hands it on.
  std::unique_ptr<snapshot::Branch> branch;
  std::unique_ptr<devices::Platform> platform;
  std::unique_ptr<snapshot::Pager> pager;
  std::function<snapshot::Pager::Ahead()> pages_ahead;  // of the pager's, asked for on its thread
  std::unique_ptr<snapshot::MachineGuest> guest;        // until serve() hands it on
  std::unique_ptr<snapshot::SnapshotService> snapshots;
  // Bound, until serve() hands it on.
  std::optional<base::UnixListener> listener;
  std::unique_ptr<RunningMachine> target;
  std::unique_ptr<ControlServer> server;

  MachineProcess() = default;
  MachineProcess(const MachineProcess&) = delete;
  ~MachineProcess();
};

// The machine exists: makes its devices. The console's descriptors and the disks are taken over.
base::Result<void> make_platform(MachineProcess& process, const RunOptions& options,
                                 std::vector<virtio::Block::Options> disks);
// From here on others get answers; they may ask since the socket listens, which is before the guest
// runs: another process may have taken its path until then. The guest runs already, where it is to:
// who pauses it then is the last to say so. The threads that the guest can do without for that long
// begin here as well.
base::Result<void> serve(MachineProcess& process, const RunOptions& options);

// The same of a machine that runs: what cannot be made ends it.
void serve_running(MachineProcess& process, const RunOptions& options);

// Where a disk was full before the machine ran, it is paused again.
void let_guest_run(MachineProcess& process);

// Stays with the machine until it ends; `process` is complete, the machine runs or is paused.
vmm::StopReason stay_with(MachineProcess& process, const RunOptions& options,
                          Foreground& foreground);

// Says on stderr how the machine ended, where that is worth a line, and gives the exit status.
int report_end(const vmm::StopReason& reason);

}  // namespace cli
