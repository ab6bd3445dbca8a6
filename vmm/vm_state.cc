#include "vmm/vm_state.h"

#include <time.h>
#include <x86intrin.h>

#include <algorithm>

namespace vmm {

using base::Result;

namespace {

static_assert(sizeof(kvm_irqchip) == 520 && sizeof(kvm_clock_data) == 48);

constexpr uint64_t kToleratedPpm = 250;

uint64_t realtime() {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

// What a TSC of `host_khz` counts as for a guest whose TSC has `khz`.
uint64_t scaled(uint64_t tsc, uint32_t khz, uint32_t host_khz) {
  if (same_tsc_frequency(khz, host_khz)) return tsc;
  return static_cast<uint64_t>(static_cast<unsigned __int128>(tsc) * khz / host_khz);
}

}  // namespace

Result<void> IrqchipState::save(const KvmVm& vm) {
  for (uint32_t chip = 0; chip < chips.size(); ++chip) {
    chips[chip].chip_id = chip;
    TRY(vm.control(KVM_GET_IRQCHIP, &chips[chip], "KVM_GET_IRQCHIP"));
  }
  return {};
}

Result<void> IrqchipState::restore(const KvmVm& vm) const {
  for (kvm_irqchip chip : chips) TRY(vm.control(KVM_SET_IRQCHIP, &chip, "KVM_SET_IRQCHIP"));
  return {};
}

void IrqchipState::encode(base::Encoder encoder) const {
  for (const kvm_irqchip& chip : chips) encoder.structure(chip);
}

Result<IrqchipState> IrqchipState::decode(base::Decoder decoder) {
  IrqchipState state;
  for (uint32_t id = 0; id < state.chips.size(); ++id) {
    state.chips[id] = decoder.structure<kvm_irqchip>();
    if (state.chips[id].chip_id != id) decoder.refuse();
  }
  TRY(decoder.finish("section 'irqchip'"));
  return state;
}

Result<ClockState> ClockState::now(const KvmVm& vm, uint32_t host_khz) {
  kvm_clock_data data{};
  TRY(vm.control(KVM_GET_CLOCK, &data, "KVM_GET_CLOCK"));
  return ClockState{
      .guest_ns = data.clock,
      .realtime_ns = data.flags & KVM_CLOCK_REALTIME ? data.realtime : realtime(),
      .host_tsc = data.flags & KVM_CLOCK_HOST_TSC ? data.host_tsc : __rdtsc(),
      .host_khz = host_khz,
  };
}

Result<ClockState> ClockState::restore(const KvmVm& vm, ClockPolicy policy,
                                       uint32_t khz_here) const {
  kvm_clock_data data{};  // no flags: they would be a policy of KVM's own
  data.clock = guest_clock(*this, policy, realtime());
  TRY(vm.control(KVM_SET_CLOCK, &data, "KVM_SET_CLOCK"));
  return now(vm, khz_here);
}

void ClockState::encode(base::Encoder encoder) const {
  encoder.u64(guest_ns);
  encoder.u64(realtime_ns);
  encoder.u64(host_tsc);
  encoder.u32(host_khz);
}

Result<ClockState> ClockState::decode(base::Decoder decoder) {
  ClockState state;
  state.guest_ns = decoder.u64();
  state.realtime_ns = decoder.u64();
  state.host_tsc = decoder.u64();
  state.host_khz = decoder.u32();
  TRY(decoder.finish("section 'clock'"));
  return state;
}

uint64_t guest_clock(const ClockState& saved, ClockPolicy policy, uint64_t realtime_ns) {
  if (policy == ClockPolicy::kContinue || realtime_ns < saved.realtime_ns) return saved.guest_ns;
  return saved.guest_ns + (realtime_ns - saved.realtime_ns);
}

bool same_tsc_frequency(uint32_t khz, uint32_t other_khz) {
  if (khz == 0 || other_khz == 0) return true;
  uint64_t difference = std::max(khz, other_khz) - std::min(khz, other_khz);
  return difference * 1'000'000 <= kToleratedPpm * other_khz;
}

uint64_t tsc_offset_here(uint64_t saved_offset, uint32_t tsc_khz, const ClockState& saved,
                         const ClockState& now) {
  uint64_t then = scaled(saved.host_tsc, tsc_khz, saved.host_khz) + saved_offset;
  auto elapsed_ns = static_cast<int64_t>(now.guest_ns - saved.guest_ns);
  auto ticks = static_cast<int64_t>(static_cast<__int128>(elapsed_ns) * tsc_khz / 1'000'000);
  return then + static_cast<uint64_t>(ticks) - scaled(now.host_tsc, tsc_khz, now.host_khz);
}

}  // namespace vmm
