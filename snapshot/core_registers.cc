#include "snapshot/core_registers.h"

#include <fmt/format.h>

#include "vmm/layout.h"
#include "vmm/vcpu_state.h"

namespace snapshot {

base::Result<std::vector<CoreCpu>> core_registers(base::SectionReader& sections) {
  constexpr uint32_t kKernelGsBase = 0xC000'0102;  // AMD64 manual vol. 2, appendix A
  constexpr size_t kAnyXsave = 1 << 20;            // nothing is set on a CPU of this host
  std::vector<CoreCpu> cpus;
  for (uint32_t i = 0; i < vmm::layout::kMaxCpus; ++i) {
    std::string tag = fmt::format("vcpu{}", i);
    if (!sections.has(tag)) break;
    TRY_ASSIGN(base::Decoder section, sections.take(tag, vmm::kVcpuSectionVersion));
    TRY_ASSIGN(auto state, vmm::VcpuState::decode(section, kAnyXsave, tag));
    CoreCpu cpu{.regs = state.regs, .sregs = state.sregs};
    for (const kvm_msr_entry& msr : state.msrs.entries()) {
      if (msr.index == kKernelGsBase) cpu.kernel_gs_base = msr.data;
    }
    cpus.push_back(cpu);
  }
  if (cpus.empty()) return base::fail("the snapshot has no vCPU: a core would have no registers");
  return cpus;
}

}  // namespace snapshot
