// What a guest saw of its processor, kept for a restore: the answers of CPUID of every vCPU, how
// they are saved, and whether this host can give them again. Pure functions but for the section.
#pragma once

#include <linux/kvm.h>

#include <cstdint>
#include <span>
#include <vector>

#include "vmm/base/codec.h"
#include "vmm/base/result.h"
#include "vmm/base/sections.h"

namespace vmm {

inline constexpr uint32_t kCpuidSectionVersion = 1;

using CpuidTable = std::vector<kvm_cpuid_entry2>;  // one vCPU's, for KVM_SET_CPUID2

void encode_cpuid(std::span<const CpuidTable> tables, base::Encoder encoder);
// Takes the section "cpuid": a table for each vCPU of the saved machine, at least one.
base::Result<std::vector<CpuidTable>> take_cpuid(base::SectionReader& reader);

// Fails where the guest saw a feature in `saved` that `offered`, what a new machine's vCPU would
// get on this host, does not have; the error lists them. Another vendor's processor is refused too.
base::Result<void> check_features(std::span<const kvm_cpuid_entry2> saved,
                                  std::span<const kvm_cpuid_entry2> offered);

}  // namespace vmm
