#include "vmm/machine.h"

#include <fmt/format.h>

#include <cassert>
#include <chrono>

#include "vmm/cpuid.h"
#include "vmm/layout.h"

namespace vmm {

using base::fail;
using base::Result;
using namespace std::chrono_literals;

namespace {

// MSRs that firmware would have set up (Intel SDM volume 4, AMD APM volume 2 appendix A).
constexpr uint32_t kMsrMiscEnable = 0x1A0;
constexpr uint64_t kMiscEnableFastStrings = 1;
constexpr uint32_t kMsrMtrrDefaultType = 0x2FF;
constexpr uint64_t kMtrrEnableWriteBack = 1 << 11 | 6;

// About as long as a snapshot's pause is to take.
constexpr std::chrono::nanoseconds kSpin = 300us;

int64_t monotonic_ns() {
  // On Linux steady_clock is CLOCK_MONOTONIC.
  return std::chrono::steady_clock::now().time_since_epoch() / 1ns;
}

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
  TRY(machine->create_memory(config));
  // Intel only, harmless on AMD; both must come before the first vCPU.
  TRY(machine->vm_->set_identity_map(layout::kKvmIdentityMap, layout::kKvmTss));
  TRY(machine->vm_->create_irqchip());
  machine->interrupts_ = std::make_unique<KvmInterrupts>(*machine->vm_);
  TRY(machine->create_vcpus(kvm, config.cpus));
  return machine;
}

Machine::~Machine() { halt_threads(); }

Result<void> Machine::create_memory(const Config& config) {
  TRY_ASSIGN(memory_, GuestMemory::create(config.memory_bytes));
  if (config.dirty_log) {
    TRY(vm_->enable_manual_dirty_log());
    dirty_log_.emplace(*vm_, *memory_);
  }
  // Logging from the start: turned on later, it keeps the guest waiting for milliseconds.
  uint32_t flags = config.dirty_log ? KVM_MEM_LOG_DIRTY_PAGES : 0;
  uint32_t slot = 0;
  for (const GuestMemory::Region& region : memory_->regions()) {
    TRY(vm_->set_memory(slot++, region.start, region.host, region.size, flags));
  }
  return {};
}

Result<void> Machine::create_vcpus(const Kvm& kvm, uint32_t count) {
  TRY_ASSIGN(auto supported, kvm.supported_cpuid());
  Vcpu::install_kick_signal();
  // Who waits for a vCPU needs a processor of its own to spin on.
  std::chrono::nanoseconds spin = count < std::thread::hardware_concurrency() ? kSpin : 0ns;
  for (uint32_t i = 0; i < count; ++i) {
    TRY_ASSIGN(KvmVcpu vcpu, vm_->create_vcpu(i));
    CpuidConfig cpuid{.cpu = i,
                      .cpus = count,
                      .tsc_khz = vcpu.tsc_khz(),
                      .tsc_deadline_timer = kvm.capability(KVM_CAP_TSC_DEADLINE_TIMER) > 0};
    TRY(vcpu.set_cpuid(make_cpuid(supported, cpuid)));
    TRY(vcpu.set_msrs({{kMsrMiscEnable, 0, kMiscEnableFastStrings},
                       {kMsrMtrrDefaultType, 0, kMtrrEnableWriteBack}}));
    vcpus_.push_back(
        std::make_unique<Vcpu>(i, std::move(vcpu), pio_, mmio_, spin,
                               [this](StopReason reason) { stop(std::move(reason)); }));
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

void Machine::direct_vcpus() {
  bool run = wanted_ && holds_ == 0 && !stop_reason_;
  for (auto& vcpu : vcpus_) run ? vcpu->unpark() : vcpu->park();
}

void Machine::run() {
  // A pause() in progress waits for every vCPU to park; it is not to be overtaken.
  std::lock_guard control(control_);
  std::lock_guard lock(mutex_);
  if (wanted_ || stop_reason_) return;
  wanted_ = true;
  direct_vcpus();
}

void Machine::pause() {
  std::lock_guard control(control_);
  {
    std::lock_guard lock(mutex_);
    wanted_ = false;
    direct_vcpus();
  }
  // Outside the lock: a vCPU on its way to be parked may call stop().
  for (auto& vcpu : vcpus_) vcpu->wait_parked();
}

bool Machine::paused() const {
  std::lock_guard lock(mutex_);
  return !wanted_ || stop_reason_;
}

Machine::HoldTimes Machine::hold(const VcpuTask* task) {
  HoldTimes times;
  {
    std::lock_guard lock(mutex_);
    ++holds_;
    times.kick_ns = monotonic_ns();
    direct_vcpus();
    if (task != nullptr) begin_tasks(*task);
  }
  for (auto& vcpu : vcpus_) vcpu->wait_parked();
  times.parked_ns = monotonic_ns();
  return times;
}

void Machine::begin_tasks(const VcpuTask& task) {
  for (auto& vcpu : vcpus_) vcpu->begin_task(task);
}

void Machine::wait_tasks() {
  for (auto& vcpu : vcpus_) vcpu->wait_task();
}

void Machine::release() {
  std::lock_guard lock(mutex_);
  assert(holds_ > 0);
  --holds_;
  direct_vcpus();
}

void Machine::stop(StopReason reason) {
  std::lock_guard lock(mutex_);
  bool first = !stop_reason_;
  if (first) stop_reason_ = std::move(reason);
  direct_vcpus();
  if (first) stopped_.signal();
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
