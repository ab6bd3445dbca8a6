// Why a machine stopped.
#pragma once

#include <string>

namespace vmm {

struct StopReason {
  enum class Kind {
    kPowerOff,     // the guest powered off
    kReset,        // the guest asked for a reset, or ended in a triple fault
    kPanic,        // the guest's kernel reported a panic
    kExit,         // the guest gave an exit status
    kRequested,    // the host stopped it
    kSnapshotted,  // the host stopped it, in a snapshot that is committed
    kError,        // KVM cannot go on
  };
  Kind kind = Kind::kPowerOff;
  int status = 0;      // of kExit
  std::string detail;  // for people; what exactly of kError and kReset
};

}  // namespace vmm
