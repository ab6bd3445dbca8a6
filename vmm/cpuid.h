// What a vCPU's CPUID instruction answers: KVM's supported leaves, with the topology of this
// machine written over the host's. Pure functions; the machine calls make_cpuid() once for each
// vCPU before its first run (KVM API 4.20, 4.46).
//
// The machine is one socket of `cpus` cores, one thread each, one last-level cache; a vCPU's APIC
// id is its index, as the MADT says.
#pragma once

#include <linux/kvm.h>

#include <cstdint>
#include <span>
#include <vector>

namespace vmm {

struct CpuidConfig {
  uint32_t cpu = 0;                 // this vCPU's index
  uint32_t cpus = 1;                // 1 to layout::kMaxCpus
  uint32_t tsc_khz = 0;             // KVM_GET_TSC_KHZ; 0: not known
  bool tsc_deadline_timer = false;  // KVM_CAP_TSC_DEADLINE_TIMER
};

// `supported`: the entries of KVM_GET_SUPPORTED_CPUID. The result is for KVM_SET_CPUID2.
//
// Besides the topology, some features are withheld:
//   asynchronous page faults   a fault outstanding at a snapshot is never completed after a restore
//   VMX, SVM                   nested state is not part of a vCPU's saved state
//   memory encryption          guests here are not encrypted; Linux would read its MSRs
std::vector<kvm_cpuid_entry2> make_cpuid(std::span<const kvm_cpuid_entry2> supported,
                                         const CpuidConfig& config);

}  // namespace vmm
