// Leaf and field names are those of Intel's SDM volume 2A (CPUID) and AMD's APM volume 3,
// appendix E.
#include "vmm/cpuid.h"

#include <asm/kvm_para.h>

#include <algorithm>
#include <bit>
#include <cassert>
#include <initializer_list>

#include "vmm/layout.h"

namespace vmm {
namespace {

using Entries = std::vector<kvm_cpuid_entry2>;

constexpr uint32_t kFeatures = 0x1;
constexpr uint32_t kCaches = 0x4;
constexpr uint32_t kStructuredFeatures = 0x7;
constexpr uint32_t kTopology = 0xB;
constexpr uint32_t kTopologyV2 = 0x1F;
constexpr uint32_t kKvmTiming = 0x4000'0010;
constexpr uint32_t kExtendedFeatures = 0x8000'0001;
constexpr uint32_t kAddressSizes = 0x8000'0008;
constexpr uint32_t kSvm = 0x8000'000A;
constexpr uint32_t kAmdCaches = 0x8000'001D;
constexpr uint32_t kAmdTopology = 0x8000'001E;
constexpr uint32_t kAmdEncryption = 0x8000'001F;
constexpr uint32_t kAmdTopologyV2 = 0x8000'0026;

constexpr uint32_t bit(unsigned number) { return 1u << number; }

// Leaf 1.
constexpr uint32_t kEcxVmx = bit(5);
constexpr uint32_t kEcxTscDeadline = bit(24);
constexpr uint32_t kEcxHypervisor = bit(31);
constexpr uint32_t kEdxHtt = bit(28);
// Leaf 7.
constexpr uint32_t kEcxShadowStacks = bit(7);
// Leaf 0x8000'0001.
constexpr uint32_t kEcxCmpLegacy = bit(1);
constexpr uint32_t kEcxSvm = bit(2);
constexpr uint32_t kEcxTopologyExtensions = bit(22);

// KVM's emulated local APIC counts nanoseconds.
constexpr uint32_t kApicBusKhz = 1'000'000;

constexpr uint32_t kNoCache = 0;
constexpr uint32_t kSmtLevel = 1;
constexpr uint32_t kCoreLevel = 2;

class CpuidBuilder {
 public:
  CpuidBuilder(std::span<const kvm_cpuid_entry2> supported, const CpuidConfig& config)
      : entries_(supported.begin(), supported.end()),
        config_(config),
        core_bits_(static_cast<uint32_t>(std::bit_width(config.cpus - 1))) {}

  Entries build() {
    amd_ = is_amd();
    remove({kSvm, kAmdEncryption, kAmdTopologyV2});
    set_features();
    set_caches();
    set_topology();
    if (amd_) set_amd_topology();
    set_hypervisor();
    return std::move(entries_);
  }

 private:
  kvm_cpuid_entry2* find(uint32_t function) {
    auto found = std::ranges::find(entries_, function, &kvm_cpuid_entry2::function);
    return found == entries_.end() ? nullptr : &*found;
  }

  void remove(std::initializer_list<uint32_t> functions) {
    std::erase_if(entries_, [&](const kvm_cpuid_entry2& entry) {
      return std::ranges::find(functions, entry.function) != functions.end();
    });
  }

  bool is_amd() {
    const kvm_cpuid_entry2* vendor = find(0);
    if (vendor == nullptr) return false;
    constexpr uint32_t kAuth = 0x6874'7541, kHygo = 0x6F67'7948;  // "Auth"enticAMD, "Hygo"nGenuine
    return vendor->ebx == kAuth || vendor->ebx == kHygo;
  }

  // Raises the highest leaf that `first` announces, never lowers it.
  void announce(uint32_t first, uint32_t function) {
    if (kvm_cpuid_entry2* range = find(first)) range->eax = std::max(range->eax, function);
  }

  void set_features() {
    if (kvm_cpuid_entry2* leaf = find(kFeatures)) {
      uint32_t ids_in_package = amd_ ? config_.cpus : bit(core_bits_);
      leaf->ebx = (leaf->ebx & 0xFFFF) | ids_in_package << 16 | config_.cpu << 24;
      leaf->ecx &= ~(kEcxVmx | kEcxTscDeadline);
      leaf->ecx |= kEcxHypervisor | (config_.tsc_deadline_timer ? kEcxTscDeadline : 0);
      leaf->edx = (leaf->edx & ~kEdxHtt) | (config_.cpus > 1 ? kEdxHtt : 0);
    }
    // The shadow stack's pointer is in no structure and no MSR that is saved: a program that uses
    // one would not survive a restore.
    if (kvm_cpuid_entry2* leaf = find(kStructuredFeatures)) leaf->ecx &= ~kEcxShadowStacks;
    if (kvm_cpuid_entry2* leaf = find(kExtendedFeatures)) {
      leaf->ecx &= ~kEcxSvm;
      // On AMD this says that HTT above means cores, not threads.
      if (amd_) leaf->ecx = (leaf->ecx & ~kEcxCmpLegacy) | (config_.cpus > 1 ? kEcxCmpLegacy : 0);
    }
  }

  // Level 3 belongs to the socket, the others to a core.
  void set_caches() {
    for (kvm_cpuid_entry2& entry : entries_) {
      if (entry.function != kCaches && entry.function != kAmdCaches) continue;
      if ((entry.eax & 0x1F) == kNoCache) continue;
      uint32_t level = entry.eax >> 5 & 7;
      uint32_t ids_in_package = entry.function == kCaches ? bit(core_bits_) : config_.cpus;
      uint32_t sharing = level >= 3 ? ids_in_package : 1;
      entry.eax = (entry.eax & 0x3FFF) | (sharing - 1) << 14;
      if (entry.function == kCaches) entry.eax |= (ids_in_package - 1) << 26;
    }
  }

  void set_topology() {
    bool v2 = find(kTopologyV2) != nullptr;
    remove({kTopology, kTopologyV2});
    add_topology_leaf(kTopology);
    if (v2) add_topology_leaf(kTopologyV2);
    announce(0, kTopology);
  }

  // EAX: how far to shift an x2APIC id for that of the next level; EBX: CPUs at this level.
  void add_topology_leaf(uint32_t function) {
    add(function, 0, {0, 1, kSmtLevel << 8 | 0, config_.cpu});
    add(function, 1, {core_bits_, config_.cpus, kCoreLevel << 8 | 1, config_.cpu});
    add(function, 2, {0, 0, 2, config_.cpu});
  }

  void set_amd_topology() {
    if (kvm_cpuid_entry2* sizes = find(kAddressSizes)) {
      sizes->ecx = core_bits_ << 12 | (config_.cpus - 1);
    }
    const kvm_cpuid_entry2* features = find(kExtendedFeatures);
    remove({kAmdTopology});
    if (features == nullptr || !(features->ecx & kEcxTopologyExtensions)) return;
    // Extended APIC id; one thread in core `cpu`; node 0 of one.
    add(kAmdTopology, 0, {config_.cpu, config_.cpu, 0, 0});
    announce(0x8000'0000, kAmdTopology);
  }

  void set_hypervisor() {
    if (kvm_cpuid_entry2* leaf = find(KVM_CPUID_FEATURES)) {
      leaf->eax &= ~(bit(KVM_FEATURE_ASYNC_PF) | bit(KVM_FEATURE_ASYNC_PF_INT) |
                     bit(KVM_FEATURE_ASYNC_PF_VMEXIT));
    }
    remove({kKvmTiming});
    if (config_.tsc_khz == 0 || find(KVM_CPUID_SIGNATURE) == nullptr) return;
    add(kKvmTiming, 0, {config_.tsc_khz, kApicBusKhz, 0, 0});
    announce(KVM_CPUID_SIGNATURE, kKvmTiming);
  }

  struct Registers {
    uint32_t eax, ebx, ecx, edx;
  };
  void add(uint32_t function, uint32_t index, Registers registers) {
    bool indexed = function == kTopology || function == kTopologyV2;
    entries_.push_back({.function = function,
                        .index = index,
                        .flags = indexed ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0u,
                        .eax = registers.eax,
                        .ebx = registers.ebx,
                        .ecx = registers.ecx,
                        .edx = registers.edx,
                        .padding = {}});
  }

  Entries entries_;
  const CpuidConfig& config_;
  uint32_t core_bits_;  // of an APIC id
  bool amd_ = false;
};

}  // namespace

std::vector<kvm_cpuid_entry2> make_cpuid(std::span<const kvm_cpuid_entry2> supported,
                                         const CpuidConfig& config) {
  assert(config.cpus >= 1 && config.cpus <= layout::kMaxCpus && config.cpu < config.cpus);
  return CpuidBuilder(supported, config).build();
}

}  // namespace vmm
