// The statuses `minivmm` ends with: the only place that says them (--help and the tests read it).
//
// A guest may end with any status from 0 to 127 through the exit port (devices/exit_port.h). A
// shell reports a process killed by a signal as 129 to 192, so what the VMM has to say about the
// end of a guest stands above that; systemd's own statuses begin at 200.
#pragma once

#include "vmm/stop_reason.h"

namespace cli {

enum ExitStatus : int {
  kSuccess = 0,   // run: the guest powered off; other commands: done
  kFailure = 1,   // other commands: could not be done
  kBadInput = 2,  // wrong option, unusable file or host; no guest has run
  kGuestReset = 193,
  kGuestPanic = 194,
  kStopped = 195,      // second signal, `stop --force`, Ctrl-A X
  kVmmError = 196,     // KVM or the VMM failed while the guest ran
  kSnapshotted = 197,  // `snapshot --stop`, --snapshot-on-term: a snapshot was committed
};

// What `run` ends with.
int exit_status_of(const vmm::StopReason& reason);

inline constexpr const char* kExitStatusHelp =
    R"(Exit status of run and restore:
  0        the guest powered off
  0..127   the guest's own status, written to I/O port 0xF4
  2        bad option, file or host: no guest has run (one line on stderr says why)
  193      the guest reset (reboot, or a panic with panic=-1 that was not reported as one)
  194      the guest reported a panic
  195      stopped by request: a second signal, `minivmm stop --force`, Ctrl-A X
  196      KVM or the VMM failed while the guest ran
  197      ended by `minivmm snapshot --stop` or --snapshot-on-term, its snapshot committed
Exit status of the other commands: 0 done, 1 could not be done, 2 wrong option.
)";

}  // namespace cli
