#include "vmm/machine_state.h"

#include <fmt/format.h>

#include "vmm/machine.h"

namespace vmm {

using base::Result;

Result<std::unique_ptr<MachineState>> MachineState::prepare(Machine& machine) {
  std::unique_ptr<MachineState> state(new MachineState(machine));
  TRY_ASSIGN(auto candidates, msr_candidates(machine.kvm()));
  state->outcomes_.resize(machine.cpus());
  state->read_vcpu_ = [self = state.get()](uint32_t index, const KvmVcpu& vcpu) {
    self->vcpus_[index].tsc_khz = self->machine_.tsc_khz(index);
    self->outcomes_[index] = self->vcpus_[index].save(vcpu);
  };
  // A vCPU in KVM_RUN would keep the ioctls waiting.
  machine.hold();
  Result<void> prepared;
  for (const auto& vcpu : machine.vcpus()) {
    auto made = VcpuState::prepare(machine.vm(), vcpu->kvm(), candidates);
    if (!made) {
      prepared = std::unexpected(made.error());
      break;
    }
    state->vcpus_.push_back(std::move(*made));
  }
  machine.release();
  TRY(std::move(prepared));
  return state;
}

Result<void> MachineState::read_vm() {
  TRY(irqchip_.save(machine_.vm()));
  TRY_ASSIGN(clock_, ClockState::now(machine_.vm(), machine_.host_tsc_khz()));
  return {};
}

Result<void> MachineState::outcome() const {
  for (size_t i = 0; i < outcomes_.size(); ++i) {
    if (!outcomes_[i]) {
      return std::unexpected(outcomes_[i].error().with(fmt::format("state of vCPU {}", i)));
    }
  }
  return {};
}

void MachineState::encode(base::SectionWriter& writer) const {
  encode_cpuid(machine_.cpuid(), writer.begin("cpuid", kCpuidSectionVersion));
  for (size_t i = 0; i < vcpus_.size(); ++i) {
    vcpus_[i].encode(writer.begin(fmt::format("vcpu{}", i), kVcpuSectionVersion));
  }
  irqchip_.encode(writer.begin("irqchip", kIrqchipSectionVersion));
  clock_.encode(writer.begin("clock", kClockSectionVersion));
}

Result<SavedMachine> SavedMachine::decode(base::SectionReader& reader, uint32_t cpus,
                                          size_t xsave_bytes) {
  SavedMachine saved;
  for (uint32_t i = 0; i < cpus; ++i) {
    std::string tag = fmt::format("vcpu{}", i);
    TRY_ASSIGN(base::Decoder decoder, reader.take(tag, kVcpuSectionVersion));
    TRY_ASSIGN(VcpuState vcpu, VcpuState::decode(decoder, xsave_bytes, "section '" + tag + "'"));
    saved.vcpus.push_back(std::move(vcpu));
  }
  TRY_ASSIGN(base::Decoder irqchip, reader.take("irqchip", kIrqchipSectionVersion));
  TRY_ASSIGN(saved.irqchip, IrqchipState::decode(irqchip));
  TRY_ASSIGN(base::Decoder clock, reader.take("clock", kClockSectionVersion));
  TRY_ASSIGN(saved.clock, ClockState::decode(clock));
  return saved;
}

}  // namespace vmm
