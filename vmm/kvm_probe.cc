#include "vmm/kvm_probe.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>

#include "vmm/base/mapping.h"
#include "vmm/kvm.h"
#include "vmm/layout.h"

namespace vmm {
namespace {

using Clock = std::chrono::steady_clock;

// 32-bit code: ECX times round the loop, then an exit; entered again, the next loop.
//   0: dec ecx    2: jnz 0 (dec is one byte)    out 0xF4, al    jmp 0
constexpr std::array<uint8_t, 7> kLoop{0x49, 0x75, 0xFD, 0xE6, 0xF4, 0xEB, 0xF9};
constexpr uint64_t kInstructionsPerRound = 2;
constexpr Gpa kCode{0x1000};
constexpr uint64_t kMemoryBytes = 0x10000;

constexpr uint64_t kFirstRounds = 1000;
constexpr uint64_t kLastRounds = 2'048'000;
constexpr std::chrono::milliseconds kEnough{60};

// Flat 32-bit protected mode without paging: needs no tables in memory.
base::Result<void> enter_protected_mode(const KvmVcpu& vcpu) {
  kvm_sregs sregs{};
  TRY(vcpu.control(KVM_GET_SREGS, &sregs, "KVM_GET_SREGS"));
  kvm_segment flat{};
  flat.limit = 0xFFFF'FFFF;
  flat.present = 1;
  flat.s = 1;
  flat.db = 1;
  flat.g = 1;
  flat.type = 3;  // data, writable, accessed
  flat.selector = 0x10;
  sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = flat;
  flat.type = 11;  // code, readable, accessed
  flat.selector = 0x08;
  sregs.cs = flat;
  sregs.cr0 |= 1;  // PE
  return vcpu.control(KVM_SET_SREGS, &sregs, "KVM_SET_SREGS");
}

// Instructions a second over one run of the loop.
base::Result<double> run_loop(const KvmVcpu& vcpu, uint64_t rounds) {
  kvm_regs regs{};
  regs.rip = kCode.value;
  regs.rflags = 2;  // the bit that is always one
  regs.rcx = rounds;
  TRY(vcpu.control(KVM_SET_REGS, &regs, "KVM_SET_REGS"));
  auto start = Clock::now();
  int error;
  do {
    error = vcpu.enter();
  } while (error == EINTR || error == EAGAIN);
  double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  if (error != 0) return base::fail("KVM_RUN", error);
  if (vcpu.run().exit_reason != KVM_EXIT_IO) {
    return base::fail("KVM cannot run a loop of three instructions: exit reason " +
                      std::to_string(vcpu.run().exit_reason));
  }
  return static_cast<double>(rounds * kInstructionsPerRound) / seconds;
}

base::Result<double> measure(const KvmVm& vm) {
  TRY_ASSIGN(base::Mapping memory, base::Mapping::anonymous(kMemoryBytes));
  std::ranges::copy(kLoop, reinterpret_cast<uint8_t*>(memory.data()) + kCode.value);
  TRY(vm.set_memory(0, Gpa{0}, memory.data(), memory.size(), 0));
  TRY(vm.set_identity_map(layout::kKvmIdentityMap, layout::kKvmTss));  // as the machine does
  TRY_ASSIGN(KvmVcpu vcpu, vm.create_vcpu(0));
  TRY(enter_protected_mode(vcpu));
  // From short to long, so that a slow backend is found out soon and a fast one is measured over
  // more than the cost of one exit.
  double best = 0;
  auto start = Clock::now();
  for (uint64_t rounds = kFirstRounds; rounds <= kLastRounds; rounds *= 2) {
    TRY_ASSIGN(double rate, run_loop(vcpu, rounds));
    best = std::max(best, rate);
    if (Clock::now() - start > kEnough) break;
  }
  return best;
}

base::Result<void> fill(KvmProbe& probe, const std::string& path) {
  TRY_ASSIGN(Kvm kvm, Kvm::open(path));
  probe.dirty_ring = kvm.capability(KVM_CAP_DIRTY_LOG_RING) > 0;
  probe.manual_dirty_log_protect =
      (kvm.capability(KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2) & KVM_DIRTY_LOG_INITIALLY_SET) != 0;
  TRY_ASSIGN(KvmVm vm, kvm.create_vm());
  TRY_ASSIGN(probe.instructions_per_second, measure(vm));
  return {};
}

}  // namespace

KvmProbe probe_kvm(const std::string& path) {
  KvmProbe probe;
  if (auto filled = fill(probe, path); !filled) {
    probe.problem = filled.error().text();
  } else {
    probe.ring0 =
        probe.instructions_per_second >= kHardwareRate ? Ring0::kHardware : Ring0::kEmulated;
  }
  return probe;
}

const char* ring0_name(Ring0 ring0) {
  switch (ring0) {
    case Ring0::kAbsent:
      return "absent";
    case Ring0::kEmulated:
      return "emulated";
    case Ring0::kHardware:
      return "hardware";
  }
  return "absent";
}

}  // namespace vmm
