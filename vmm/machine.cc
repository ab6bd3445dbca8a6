#include "vmm/machine.h"

#include <fmt/format.h>

#include "vmm/cpuid.h"
#include "vmm/layout.h"

namespace vmm {

using base::fail;
using base::Result;

namespace {

// MSRs that firmware would have set up (Intel SDM volume 4, AMD APM volume 2 appendix A).
constexpr uint32_t kMsrMiscEnable = 0x1A0;
constexpr uint64_t kMiscEnableFastStrings = 1;
constexpr uint32_t kMsrMtrrDefaultType = 0x2FF;
constexpr uint64_t kMtrrEnableWriteBack = 1 << 11 | 6;

}  // namespace

Result<std::unique_ptr<Machine>> Machine::create(const Config& config) {
  if (config.cpus < 1 || config.cpus > layout::kMaxCpus) {
    return fail(fmt::format("{} vCPUs: give 1 to {}", config.cpus, layout::kMaxCpus));
  }
  TRY_ASSIGN(Kvm kvm, Kvm::open());
  int most = kvm.capability(KVM_CAP_MAX_VCPUS);
  if (most > 0 && config.cpus > static_cast<uint32_t>(most)) {
    return fail(fmt::format("{} vCPUs: KVM on this host gives at most {}", config.cpus, most));
  }
  TRY_ASSIGN(base::EventFd stopped, base::EventFd::create());
  std::unique_ptr<Machine> machine(new Machine(std::move(stopped)));
  TRY_ASSIGN(KvmVm vm, kvm.create_vm());
  machine->vm_ = std::make_unique<KvmVm>(std::move(vm));
  TRY(machine->create_memory(config.memory_bytes));
  // Intel only, harmless on AMD; both must come before the first vCPU.
  TRY(machine->vm_->set_identity_map(layout::kKvmIdentityMap, layout::kKvmTss));
  TRY(machine->vm_->create_irqchip());
  machine->interrupts_ = std::make_unique<KvmInterrupts>(*machine->vm_);
  TRY(machine->create_vcpus(kvm, config.cpus));
  return machine;
}

Machine::~Machine() { halt_threads(); }

Result<void> Machine::create_memory(uint64_t bytes) {
  TRY_ASSIGN(memory_, GuestMemory::create(bytes));
  uint32_t slot = 0;
  for (const GuestMemory::Region& region : memory_->regions()) {
    TRY(vm_->set_memory(slot++, region.start, region.host, region.size, 0));
  }
  return {};
}

Result<void> Machine::create_vcpus(const Kvm& kvm, uint32_t count) {
  TRY_ASSIGN(auto supported, kvm.supported_cpuid());
  Vcpu::install_kick_signal();
  for (uint32_t i = 0; i < count; ++i) {
    TRY_ASSIGN(KvmVcpu vcpu, vm_->create_vcpu(i));
    CpuidConfig cpuid{.cpu = i,
                      .cpus = count,
                      .tsc_khz = vcpu.tsc_khz(),
                      .tsc_deadline_timer = kvm.capability(KVM_CAP_TSC_DEADLINE_TIMER) > 0};
    TRY(vcpu.set_cpuid(make_cpuid(supported, cpuid)));
    TRY(vcpu.set_msrs({{kMsrMiscEnable, 0, kMiscEnableFastStrings},
                       {kMsrMtrrDefaultType, 0, kMtrrEnableWriteBack}}));
    vcpus_.push_back(std::make_unique<Vcpu>(
        i, std::move(vcpu), pio_, mmio_, [this](StopReason reason) { stop(std::move(reason)); }));
  }
  return {};
}

Result<void> Machine::boot(const boot::Entry& entry) {
  // The other processors wait for INIT and SIPI in KVM's local APIC.
  const KvmVcpu& first = vcpus_[0]->kvm();
  kvm_regs regs{};
  kvm_sregs sregs{};
  TRY(first.control(KVM_GET_REGS, &regs, "KVM_GET_REGS"));
  TRY(first.control(KVM_GET_SREGS, &sregs, "KVM_GET_SREGS"));
  boot::set_entry_registers(entry, regs, sregs);
  TRY(first.control(KVM_SET_SREGS, &sregs, "KVM_SET_SREGS"));
  TRY(first.control(KVM_SET_REGS, &regs, "KVM_SET_REGS"));
  for (auto& vcpu : vcpus_) TRY(vcpu->start());
  return {};
}

void Machine::run() {
  // A pause() in progress waits for every vCPU to park; it is not to be overtaken.
  std::lock_guard control(control_);
  std::lock_guard lock(mutex_);
  if (running_ || stop_reason_) return;
  running_ = true;
  for (auto& vcpu : vcpus_) vcpu->unpark();
}

void Machine::pause() {
  std::lock_guard control(control_);
  {
    std::lock_guard lock(mutex_);
    running_ = false;
    for (auto& vcpu : vcpus_) vcpu->park();
  }
  // Outside the lock: a vCPU on its way to be parked may call stop().
  for (auto& vcpu : vcpus_) vcpu->wait_parked();
}

bool Machine::paused() const {
  std::lock_guard lock(mutex_);
  return !running_;
}

void Machine::stop(StopReason reason) {
  std::lock_guard lock(mutex_);
  running_ = false;
  for (auto& vcpu : vcpus_) vcpu->park();
  if (stop_reason_) return;
  stop_reason_ = std::move(reason);
  stopped_.signal();
}

std::optional<StopReason> Machine::stop_reason() const {
  std::lock_guard lock(mutex_);
  return stop_reason_;
}

void Machine::halt_threads() {
  // All parked before the first one goes: a vCPU that stops the machine looks at the others.
  pause();
  std::vector<std::unique_ptr<Vcpu>> ended;
  std::lock_guard lock(mutex_);
  ended.swap(vcpus_);
}

}  // namespace vmm
