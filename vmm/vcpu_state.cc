#include "vmm/vcpu_state.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace vmm {

using base::fail;
using base::Result;

namespace {

// Kernel ABI: the bytes in a snapshot are these structures.
static_assert(sizeof(kvm_mp_state) == 4 && sizeof(kvm_regs) == 144 && sizeof(kvm_sregs2) == 320);
static_assert(sizeof(kvm_xcrs) == 392 && sizeof(kvm_debugregs) == 128);
static_assert(sizeof(kvm_msr_entry) == 16 && sizeof(kvm_lapic_state) == 1024);
static_assert(sizeof(kvm_vcpu_events) == 64);

constexpr size_t kLeastXsaveBytes = 4096;  // struct kvm_xsave without its extension
constexpr size_t kMostXsaveBytes = 1 << 16;
constexpr uint32_t kMostMsrs = 1024;

// Intel SDM volume 4, table 2-2.
constexpr uint32_t kMsrTsc = 0x10;
constexpr uint32_t kMsrFeatureControl = 0x3A;
constexpr uint32_t kMsrArchCapabilities = 0x10A;
constexpr uint32_t kMsrMiscEnable = 0x1A0;
constexpr uint32_t kMsrDebugControl = 0x1D9;
constexpr uint32_t kMsrMtrrPhysBase0 = 0x200;
constexpr uint32_t kMsrMtrrPhysMask7 = 0x20F;
constexpr uint32_t kMsrMtrrFixed64K = 0x250;
constexpr uint32_t kMsrMtrrFixed16K8 = 0x258;
constexpr uint32_t kMsrMtrrFixed16KA = 0x259;
constexpr uint32_t kMsrMtrrFixed4KC0 = 0x268;
constexpr uint32_t kMsrMtrrFixed4KF8 = 0x26F;
constexpr uint32_t kMsrMtrrDefaultType = 0x2FF;
constexpr uint32_t kMsrPerfCapabilities = 0x345;
constexpr uint32_t kMsrMachineCheck0Control = 0x400;  // and three more of each bank
constexpr uint32_t kMachineCheckBanks = 32;           // KVM_MAX_MCE_BANKS
constexpr uint32_t kMsrTscDeadline = 0x6E0;

// Those that say what the processor can do.
bool is_feature_msr(const kvm_msr_entry& entry) {
  return entry.index == kMsrFeatureControl || entry.index == kMsrArchCapabilities ||
         entry.index == kMsrMiscEnable || entry.index == kMsrPerfCapabilities;
}

// This host refuses the MSR. That is as good as set where it has the value anyway, or where it has
// no such MSR and the guest had nothing in it.
bool stands_anyway(const KvmVcpu& vcpu, const kvm_msr_entry& wanted) {
  MsrTable table(std::span(&wanted.index, 1));
  auto got = vcpu.get_msrs(table);
  if (!got || *got == 0) return wanted.data == 0;
  return table.entries()[0].data == wanted.data;
}

Result<void> set_msrs(const KvmVcpu& vcpu, const std::vector<kvm_msr_entry>& entries) {
  if (vcpu.set_msrs(entries)) return {};
  for (const kvm_msr_entry& entry : entries) {
    if (!vcpu.set_msrs({entry}) && !stands_anyway(vcpu, entry)) {
      return fail(fmt::format("KVM on this host does not take MSR {:#x} with value {:#x}",
                              entry.index, entry.data));
    }
  }
  return {};
}

}  // namespace

size_t xsave_bytes(const KvmVm& vm) {
  return std::max<size_t>(kLeastXsaveBytes, static_cast<size_t>(vm.capability(KVM_CAP_XSAVE2)));
}

Result<std::vector<uint32_t>> msr_candidates(const Kvm& kvm) {
  TRY_ASSIGN(std::vector<uint32_t> indices, kvm.msr_indices());
  auto add_range = [&](uint32_t first, uint32_t last) {
    for (uint32_t index = first; index <= last; ++index) indices.push_back(index);
  };
  add_range(kMsrMtrrPhysBase0, kMsrMtrrPhysMask7);
  add_range(kMsrMtrrFixed64K, kMsrMtrrFixed64K);
  add_range(kMsrMtrrFixed16K8, kMsrMtrrFixed16KA);
  add_range(kMsrMtrrFixed4KC0, kMsrMtrrFixed4KF8);
  add_range(kMsrMtrrDefaultType, kMsrMtrrDefaultType);
  add_range(kMsrDebugControl, kMsrDebugControl);
  // What machine checks report stays empty: nobody injects one.
  for (uint32_t bank = 0; bank < kMachineCheckBanks; ++bank) {
    indices.push_back(kMsrMachineCheck0Control + 4 * bank);
  }
  std::ranges::sort(indices);
  auto doubles = std::ranges::unique(indices);
  indices.erase(doubles.begin(), doubles.end());
  std::erase(indices, kMsrTsc);
  return indices;
}

Result<VcpuState> VcpuState::prepare(const KvmVm& vm, const KvmVcpu& vcpu,
                                     std::vector<uint32_t> msr_candidates) {
  VcpuState state;
  state.xsave.resize(xsave_bytes(vm));
  // KVM stops at the first that cannot be read: that one goes, and again.
  for (;;) {
    state.msrs = MsrTable(msr_candidates);
    TRY_ASSIGN(size_t got, vcpu.get_msrs(state.msrs));
    if (got == msr_candidates.size()) return state;
    msr_candidates.erase(msr_candidates.begin() + static_cast<ptrdiff_t>(got));
  }
}

Result<void> VcpuState::save(const KvmVcpu& vcpu) {
  TRY(vcpu.control(KVM_GET_MP_STATE, &mp_state, "KVM_GET_MP_STATE"));
  TRY(vcpu.control(KVM_GET_REGS, &regs, "KVM_GET_REGS"));
  TRY(vcpu.control(KVM_GET_SREGS2, &sregs, "KVM_GET_SREGS2 (Linux 5.14 or newer)"));
  TRY(vcpu.get_xsave(xsave));
  TRY(vcpu.control(KVM_GET_XCRS, &xcrs, "KVM_GET_XCRS"));
  TRY(vcpu.control(KVM_GET_DEBUGREGS, &debugregs, "KVM_GET_DEBUGREGS"));
  TRY_ASSIGN(tsc_offset, vcpu.tsc_offset());
  TRY_ASSIGN(size_t got, vcpu.get_msrs(msrs));
  if (got < msrs.count()) {
    return fail(fmt::format("KVM_GET_MSRS refuses MSR {:#x}, which it had before",
                            msrs.entries()[got].index));
  }
  TRY(vcpu.control(KVM_GET_LAPIC, &lapic, "KVM_GET_LAPIC"));
  return vcpu.control(KVM_GET_VCPU_EVENTS, &events, "KVM_GET_VCPU_EVENTS");
}

Result<void> VcpuState::restore(const KvmVcpu& vcpu, uint64_t offset) const {
  VcpuState copy = *this;  // ioctls take pointers to what is not const
  std::vector<kvm_msr_entry> early, deadline;
  for (bool features : {true, false}) {
    for (const kvm_msr_entry& entry : msrs.entries()) {
      if (is_feature_msr(entry) != features) continue;
      (entry.index == kMsrTscDeadline ? deadline : early).push_back(entry);
    }
  }
  TRY(vcpu.control(KVM_SET_MP_STATE, &copy.mp_state, "KVM_SET_MP_STATE"));
  TRY(vcpu.control(KVM_SET_REGS, &copy.regs, "KVM_SET_REGS"));
  TRY(vcpu.control(KVM_SET_SREGS2, &copy.sregs, "KVM_SET_SREGS2 (Linux 5.14 or newer)"));
  TRY(vcpu.set_xsave(xsave));
  TRY(vcpu.control(KVM_SET_XCRS, &copy.xcrs, "KVM_SET_XCRS"));
  TRY(vcpu.control(KVM_SET_DEBUGREGS, &copy.debugregs, "KVM_SET_DEBUGREGS"));
  TRY(vcpu.set_tsc_offset(offset));
  TRY(set_msrs(vcpu, early));
  TRY(vcpu.control(KVM_SET_LAPIC, &copy.lapic, "KVM_SET_LAPIC"));
  TRY(set_msrs(vcpu, deadline));
  return vcpu.control(KVM_SET_VCPU_EVENTS, &copy.events, "KVM_SET_VCPU_EVENTS");
}

Result<void> VcpuState::restore_tsc(const KvmVcpu& vcpu, uint64_t offset) const {
  TRY(vcpu.set_tsc_offset(offset));
  for (const kvm_msr_entry& entry : msrs.entries()) {
    if (entry.index == kMsrTscDeadline && entry.data != 0) TRY(set_msrs(vcpu, {entry}));
  }
  return {};
}

void VcpuState::encode(base::Encoder encoder) const {
  encoder.structure(mp_state);
  encoder.structure(regs);
  encoder.structure(sregs);
  encoder.u32(static_cast<uint32_t>(xsave.size()));
  encoder.bytes(xsave);
  encoder.structure(xcrs);
  encoder.structure(debugregs);
  encoder.u32(tsc_khz);
  encoder.u64(tsc_offset);
  encoder.u32(static_cast<uint32_t>(msrs.count()));
  encoder.bytes(std::as_bytes(msrs.entries()));
  encoder.structure(lapic);
  encoder.structure(events);
}

Result<VcpuState> VcpuState::decode(base::Decoder decoder, size_t xsave_bytes,
                                    const std::string& what) {
  VcpuState state;
  state.mp_state = decoder.structure<kvm_mp_state>();
  state.regs = decoder.structure<kvm_regs>();
  state.sregs = decoder.structure<kvm_sregs2>();
  uint32_t saved_bytes = decoder.u32();
  if (saved_bytes < kLeastXsaveBytes || saved_bytes > kMostXsaveBytes) decoder.refuse();
  auto area = decoder.bytes(saved_bytes);
  if (decoder.ok() && saved_bytes > xsave_bytes) {
    return fail(
        fmt::format("{} has {} bytes of extended processor state, KVM on this host takes {}", what,
                    saved_bytes, xsave_bytes));
  }
  state.xsave.assign(area.begin(), area.end());
  state.xsave.resize(xsave_bytes);
  state.xcrs = decoder.structure<kvm_xcrs>();
  state.debugregs = decoder.structure<kvm_debugregs>();
  state.tsc_khz = decoder.u32();
  state.tsc_offset = decoder.u64();
  uint32_t msr_count = decoder.u32();
  if (msr_count > kMostMsrs) decoder.refuse();
  auto entries = decoder.bytes(msr_count * sizeof(kvm_msr_entry));
  if (decoder.ok()) {
    state.msrs = MsrTable(std::vector<uint32_t>(msr_count));
    std::memcpy(state.msrs.entries().data(), entries.data(), entries.size());
  }
  state.lapic = decoder.structure<kvm_lapic_state>();
  state.events = decoder.structure<kvm_vcpu_events>();
  TRY(decoder.finish(what));
  return state;
}

}  // namespace vmm
