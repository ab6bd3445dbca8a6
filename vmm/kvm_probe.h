// What this host's KVM can do, found out by trying: whether guests may run at all, and whether
// guest code at CPL 0 runs on the processor or is emulated instruction by instruction (some
// paravirtual KVM backends do that: programs run, a Linux kernel does not get through its boot).
// Takes about 0.2 s at most. Used by `minivmm doctor`, by which tests choose where to run.
#pragma once

#include <cstdint>
#include <string>

#include "vmm/base/result.h"

namespace vmm {

enum class Ring0 {
  kAbsent,    // no guest can run
  kEmulated,  // below kHardwareRate
  kHardware,
};

// Instructions a second. An emulator makes about 2 million; a KVM that itself runs in an emulated
// machine several hundred, and it counts as hardware.
inline constexpr double kHardwareRate = 20e6;

struct KvmProbe {
  Ring0 ring0 = Ring0::kAbsent;
  double instructions_per_second = 0;
  std::string problem;  // of kAbsent: what failed and what to do
  bool dirty_ring = false;
  bool manual_dirty_log_protect = false;
};

KvmProbe probe_kvm(const std::string& path = "/dev/kvm");

// "absent", "emulated", "hardware"
const char* ring0_name(Ring0 ring0);

}  // namespace vmm
