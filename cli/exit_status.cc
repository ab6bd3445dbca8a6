#include "cli/exit_status.h"

namespace cli {

int exit_status_of(const vmm::StopReason& reason) {
  using Kind = vmm::StopReason::Kind;
  switch (reason.kind) {
    case Kind::kPowerOff:
      return kSuccess;
    case Kind::kReset:
      return kGuestReset;
    case Kind::kPanic:
      return kGuestPanic;
    case Kind::kExit:
      return reason.status;
    case Kind::kRequested:
      return kStopped;
    case Kind::kSnapshotted:
      return kSnapshotted;
    case Kind::kError:
      return kVmmError;
  }
  return kVmmError;
}

}  // namespace cli
