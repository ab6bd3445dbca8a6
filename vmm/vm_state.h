// The state of the VM beside its vCPUs: interrupt chips and the clock. Where their calls stand in
// the order, and why, is said in vcpu_state.h.
#pragma once

#include <linux/kvm.h>

#include <array>
#include <cstdint>
#include <string>

#include "vmm/base/codec.h"
#include "vmm/base/result.h"
#include "vmm/kvm.h"

namespace vmm {

inline constexpr uint32_t kIrqchipSectionVersion = 1;
inline constexpr uint32_t kClockSectionVersion = 1;

// What a guest's clocks do at a restore.
enum class ClockPolicy {
  kContinue,  // go on from where they were saved
  kCatchUp,   // go on by the real time since
};

struct IrqchipState {
  std::array<kvm_irqchip, 3> chips{};  // by KVM_IRQCHIP_…: PIC master, PIC slave, IOAPIC

  base::Result<void> save(const KvmVm& vm);
  base::Result<void> restore(const KvmVm& vm) const;
  void encode(base::Encoder encoder) const;
  static base::Result<IrqchipState> decode(base::Decoder decoder);
};

// One instant, seen by the guest's clock, the host's real-time clock and its TSC.
struct ClockState {
  uint64_t guest_ns = 0;     // kvmclock
  uint64_t realtime_ns = 0;  // CLOCK_REALTIME
  uint64_t host_tsc = 0;
  uint32_t host_khz = 0;  // of the TSC; 0: not known

  // KVM_GET_CLOCK. Where KVM does not give the other two (its clock does not run by the TSC), they
  // are read beside it.
  static base::Result<ClockState> now(const KvmVm& vm, uint32_t host_khz);
  // KVM_SET_CLOCK; returns the instant on this host.
  base::Result<ClockState> restore(const KvmVm& vm, ClockPolicy policy, uint32_t khz_here) const;
  void encode(base::Encoder encoder) const;
  static base::Result<ClockState> decode(base::Decoder decoder);
};

// The guest's clock at a restore that happens at `realtime_ns`. Never goes back.
uint64_t guest_clock(const ClockState& saved, ClockPolicy policy, uint64_t realtime_ns);

// KVM runs a guest's TSC unscaled where it is that close to the host's (its module parameter
// tsc_tolerance_ppm).
bool same_tsc_frequency(uint32_t khz, uint32_t other_khz);

// The TSC offset that lets the guest's TSC go on with its clock (api.rst, KVM_VCPU_TSC_OFFSET):
// between `saved` and `now` it advances by as many ticks of `tsc_khz`, the guest's frequency, as
// the guest's clock says.
uint64_t tsc_offset_here(uint64_t saved_offset, uint32_t tsc_khz, const ClockState& saved,
                         const ClockState& now);

}  // namespace vmm
