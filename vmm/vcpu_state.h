// The state of one vCPU: read from KVM in a pause, on the vCPU's own thread and into memory that is
// there already; written to a section afterwards; set on a new vCPU at restore.
//
// THE ORDER of KVM calls, and the reason for each place. save() goes down the left column,
// restore() down the right.
//
//   save                 restore
//   ----                 -------
//   (TSC_KHZ, once)      (TSC_KHZ)     by the machine, before: the unit of the TSC offset and of
//                                      TSC_DEADLINE
//                        (CPUID)       by the machine, before: decides which MSRs there are, and
//                                      which bits of SREGS and XSAVE are allowed
//   MP_STATE             MP_STATE      reading it makes KVM take INIT and SIPI, which changes
//                                      registers: before them
//   REGS                 REGS          setting them drops pending exceptions: before VCPU_EVENTS
//   SREGS2               SREGS2        mode, EFER and APIC base: before MSRs and LAPIC
//   XSAVE2               XSAVE
//   XCRS                 XCRS
//   DEBUGREGS            DEBUGREGS
//   TSC_OFFSET           TSC_OFFSET    before TSC_DEADLINE, which is in ticks of this TSC; set by
//                                      offset and not by the MSR, so that all vCPUs have the same
//                                      and KVM keeps its master clock
//   MSRs                 MSRs without TSC_DEADLINE; those that say what the processor can do first:
//                                      another value of PERF_CAPABILITIES resets the PMU's counters
//   LAPIC                LAPIC         read after TSC_DEADLINE: a timer that fires in between is
//                                      then armed and pending, and not lost
//                        TSC_DEADLINE  KVM takes it only when the LVT is in that mode; a deadline
//                                      that has passed fires at once
//   VCPU_EVENTS          VCPU_EVENTS   last: what other calls put on the way to the guest, or drop
//
// Of the VM (vm_state.h): the clock is set before the vCPUs, because TSC offsets and the guest's
// wall clock (an MSR that KVM answers by writing guest memory) are made from it; PICs and IOAPIC
// are set after them, because setting the IOAPIC delivers its pending interrupts to the LAPICs.
// Devices come last of all, and raise every interrupt once. Clock, PICs and IOAPIC are read while
// the vCPUs are: nothing that runs could change them, and each call takes its time (a KVM that
// loads the vCPU slowly takes 5 us for every one).
//
// MSR_IA32_TSC is not among the MSRs; TSC_OFFSET stands for it. MTRRs, DEBUGCTL and the control
// registers of machine checks are, which KVM does not list.
#pragma once

#include <linux/kvm.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "vmm/base/codec.h"
#include "vmm/base/result.h"
#include "vmm/kvm.h"

namespace vmm {

inline constexpr uint32_t kVcpuSectionVersion = 1;

struct VcpuState {
  kvm_mp_state mp_state{};
  kvm_regs regs{};
  kvm_sregs2 sregs{};
  std::vector<std::byte> xsave;  // as KVM_CAP_XSAVE2 says, 4 KiB at least
  kvm_xcrs xcrs{};
  kvm_debugregs debugregs{};
  uint32_t tsc_khz = 0;  // Machine::tsc_khz()
  uint64_t tsc_offset = 0;
  MsrTable msrs;
  kvm_lapic_state lapic{};
  kvm_vcpu_events events{};

  // Makes room, and finds out which of `msr_candidates` this vCPU has.
  // While parked, not in a pause that counts.
  static base::Result<VcpuState> prepare(const KvmVm& vm, const KvmVcpu& vcpu,
                                         std::vector<uint32_t> msr_candidates);

  // In the order above. save() allocates nothing unless it fails.
  base::Result<void> save(const KvmVcpu& vcpu);
  // `offset`: of the TSC, on this host. An MSR this host does not have is refused, unless its value
  // is 0.
  base::Result<void> restore(const KvmVcpu& vcpu, uint64_t offset) const;
  // Of a vCPU that was restored and has not run: another offset, and the timer that runs by it.
  base::Result<void> restore_tsc(const KvmVcpu& vcpu, uint64_t offset) const;

  void encode(base::Encoder encoder) const;
  // `xsave_bytes`: how much this host's KVM_SET_XSAVE reads. `what` begins the error's text.
  static base::Result<VcpuState> decode(base::Decoder decoder, size_t xsave_bytes,
                                        const std::string& what);
};

// How many bytes KVM_GET_XSAVE2 writes and KVM_SET_XSAVE reads.
size_t xsave_bytes(const KvmVm& vm);
// KVM's list and what is missing in it, without what is saved otherwise.
base::Result<std::vector<uint32_t>> msr_candidates(const Kvm& kvm);

}  // namespace vmm
