#include "vmm/machine.h"

#include <fmt/format.h>
#include <sched.h>

#include <cassert>
#include <chrono>

#include "vmm/base/log.h"
#include "vmm/cpuid.h"
#include "vmm/layout.h"
#include "vmm/machine_state.h"

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

// Linux's watchdogs may be set to two seconds (watchdog_thresh).
constexpr int64_t kNoticed = 1'000'000'000;

// A restored guest that runs at once has waited for less.
constexpr int64_t kMuch = 20'000'000;

int64_t monotonic_ns() {
  // On Linux steady_clock is CLOCK_MONOTONIC.
  return std::chrono::steady_clock::now().time_since_epoch() / 1ns;
}

// Those of this process. std::thread asks a file of /sys, which takes longer than the rest of this.
uint32_t usable_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;  // more than 1024
  return static_cast<uint32_t>(CPU_COUNT(&set));
}

}  // namespace

Result<EmptyVm> EmptyVm::create() {
  TRY_ASSIGN(Kvm kvm, Kvm::open());
  TRY_ASSIGN(KvmVm vm, kvm.create_vm());
  return EmptyVm{std::move(kvm), std::move(vm)};
}

Result<std::unique_ptr<Machine>> Machine::create(const Config& config) {
  TRY_ASSIGN(EmptyVm vm, EmptyVm::create());
  TRY_ASSIGN(auto memory, GuestMemory::create(config.memory_bytes, config.memory));
  return create(std::move(vm), std::move(memory), config);
}

Result<std::unique_ptr<Machine>> Machine::create(EmptyVm vm, std::shared_ptr<GuestMemory> memory,
                                                 const Config& config) {
  if (config.cpus < 1 || config.cpus > layout::kMaxCpus) {
    return fail(fmt::format("{} vCPUs: give 1 to {}", config.cpus, layout::kMaxCpus));
  }
  int most = vm.kvm.capability(KVM_CAP_MAX_VCPUS);
  if (most > 0 && config.cpus > static_cast<uint32_t>(most)) {
    return fail(fmt::format("{} vCPUs: KVM on this host gives at most {}", config.cpus, most));
  }
  if (!config.cpuid.empty() && config.cpuid.size() != config.cpus) {
    return fail(
        fmt::format("the saved machine has {} vCPUs, not {}", config.cpuid.size(), config.cpus));
  }
  TRY_ASSIGN(base::EventFd stopped, base::EventFd::create());
  std::unique_ptr<Machine> machine(
      new Machine(std::move(vm), std::move(memory), std::move(stopped)));
  TRY_ASSIGN(machine->dirty_log_,
             DirtyLog::create(machine->vm_, *machine->memory_, config.log_from_start));
  // Intel only, harmless on AMD; both must come before the first vCPU.
  TRY(machine->vm_.set_identity_map(layout::kKvmIdentityMap, layout::kKvmTss));
  TRY(machine->vm_.create_irqchip());
  machine->interrupts_ = std::make_unique<KvmInterrupts>(machine->vm_);
  TRY(machine->create_vcpus(config));
  return machine;
}

Machine::Machine(EmptyVm vm, std::shared_ptr<GuestMemory> memory, base::EventFd stopped)
    : kvm_(std::move(vm.kvm)),
      vm_(std::move(vm.vm)),
      memory_(std::move(memory)),
      stopped_(std::move(stopped)) {}

Machine::~Machine() { halt_threads(); }

Result<void> Machine::make_cpuid_tables(const std::vector<CpuidTable>& saved, uint32_t cpus) {
  TRY_ASSIGN(auto supported, kvm_.supported_cpuid());
  for (uint32_t i = 0; i < cpus; ++i) {
    CpuidConfig config{.cpu = i,
                       .cpus = cpus,
                       .tsc_khz = host_tsc_khz_,
                       .tsc_deadline_timer = kvm_.capability(KVM_CAP_TSC_DEADLINE_TIMER) > 0};
    cpuid_.push_back(make_cpuid(supported, config));
    if (saved.empty()) continue;
    TRY(check_features(saved[i], cpuid_.back()));
    cpuid_.back() = saved[i];
  }
  return {};
}

Result<void> Machine::create_vcpus(const Config& config) {
  Vcpu::install_kick_signal();
  // Exceptions on their way to the guest are then saved as such (api.rst, KVM_GET_VCPU_EVENTS).
  TRY(vm_.enable(KVM_CAP_EXCEPTION_PAYLOAD, 1, "KVM_CAP_EXCEPTION_PAYLOAD (Linux 4.20 or newer)"));
  // Who waits for a vCPU needs a processor of its own to spin on.
  std::chrono::nanoseconds spin = config.cpus < usable_cpus() ? kSpin : 0ns;
  for (uint32_t i = 0; i < config.cpus; ++i) {
    TRY_ASSIGN(KvmVcpu vcpu, vm_.create_vcpu(i));
    if (i == 0) {
      host_tsc_khz_ = vcpu.tsc_khz();
      tsc_khz_.assign(config.cpus, host_tsc_khz_);
      TRY(make_cpuid_tables(config.cpuid, config.cpus));
    }
    TRY(vcpu.set_cpuid(cpuid_[i]));
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

Result<void> Machine::load_state(base::SectionReader& reader) {
  TRY_ASSIGN(SavedMachine saved, SavedMachine::decode(reader, cpus(), xsave_bytes(vm_)));
  bool scales = kvm_.capability(KVM_CAP_TSC_CONTROL) > 0;
  for (uint32_t i = 0; i < cpus(); ++i) {
    uint32_t khz = saved.vcpus[i].tsc_khz;
    if (!scales && !same_tsc_frequency(khz, host_tsc_khz_)) {
      return fail(fmt::format(
          "the guest's TSC runs at {} kHz, this host's at {} kHz and KVM cannot scale it here: "
          "restore on a host with that frequency or with TSC scaling",
          khz, host_tsc_khz_));
    }
    if (khz != 0) {
      TRY(vcpus_[i]->kvm().set_tsc_khz(khz));
      tsc_khz_[i] = khz;
    }
    TRY(vcpus_[i]->start());
  }
  saved_ = std::make_unique<SavedMachine>(std::move(saved));
  return {};
}

Result<void> Machine::set_state(ClockPolicy clock) {
  assert(saved_);
  std::unique_ptr<SavedMachine> saved = std::move(saved_);
  // The order of all this: vcpu_state.h.
  TRY_ASSIGN(ClockState now, saved->clock.restore(vm_, clock, host_tsc_khz_));
  for (uint32_t i = 0; i < cpus(); ++i) {
    const VcpuState& state = saved->vcpus[i];
    uint64_t offset = tsc_offset_here(state.tsc_offset, state.tsc_khz, saved->clock, now);
    auto restored = state.restore(vcpus_[i]->kvm(), offset);
    if (!restored) {
      return std::unexpected(restored.error().with(fmt::format("section 'vcpu{}'", i)));
    }
    TRY_ASSIGN(uint64_t taken, vcpus_[i]->kvm().tsc_offset());
    if (taken != offset) {
      base::log_info("KVM on this host does not offset the TSC: the guest's is the host's");
    }
  }
  if (auto restored = saved->irqchip.restore(vm_); !restored) {
    return std::unexpected(restored.error().with("section 'irqchip'"));
  }
  for (auto& vcpu : vcpus_) TRY(vcpu->kvm().tell_stopped());
  waiting_since_ns_ = monotonic_ns();
  if (clock == ClockPolicy::kContinue) waiting_ = std::move(saved);
  return {};
}

// KVM's clocks go on whether the guest runs or not: what it waited for its first run is taken back.
Result<void> Machine::continue_clock(const SavedMachine& saved) {
  TRY_ASSIGN(ClockState now, saved.clock.restore(vm_, ClockPolicy::kContinue, host_tsc_khz_));
  for (uint32_t i = 0; i < cpus(); ++i) {
    const VcpuState& state = saved.vcpus[i];
    TRY(state.restore_tsc(vcpus_[i]->kvm(),
                          tsc_offset_here(state.tsc_offset, state.tsc_khz, saved.clock, now)));
  }
  return {};
}

void Machine::direct_vcpus() {
  bool run = wanted_ && holds_ == 0 && !stop_reason_;
  if (!run && !standing_since_ns_) standing_since_ns_ = monotonic_ns();
  if (run && standing_since_ns_) {
    if (monotonic_ns() - *standing_since_ns_ > kNoticed) {
      for (auto& vcpu : vcpus_) {
        if (auto told = vcpu->kvm().tell_stopped(); !told)
          base::log_warning("{}", told.error().text());
      }
    }
    standing_since_ns_.reset();
  }
  for (auto& vcpu : vcpus_) run ? vcpu->unpark() : vcpu->park();
}

void Machine::run() {
  // A pause() in progress waits for every vCPU to park; it is not to be overtaken.
  std::lock_guard control(control_);
  std::lock_guard lock(mutex_);
  if (wanted_ || stop_reason_) return;
  auto waiting = std::exchange(waiting_, nullptr);
  if (waiting && monotonic_ns() - waiting_since_ns_ > kMuch) {
    if (auto done = continue_clock(*waiting); !done) base::log_warning("{}", done.error().text());
  }
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

void Machine::hold(const VcpuTask* task) {
  begin_hold(task);
  wait_held();
}

void Machine::begin_hold(const VcpuTask* task) {
  std::lock_guard lock(mutex_);
  ++holds_;
  direct_vcpus();
  if (task != nullptr) begin_tasks(*task);
}

void Machine::wait_held() {
  for (auto& vcpu : vcpus_) vcpu->wait_parked();
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
