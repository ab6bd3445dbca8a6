#include "vmm/cpuid.h"

#include <asm/kvm_para.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <set>
#include <string_view>
#include <utility>

#include "vmm/layout.h"

namespace vmm {
namespace {

using Entries = std::vector<kvm_cpuid_entry2>;

kvm_cpuid_entry2 leaf(uint32_t function, uint32_t index, uint32_t eax, uint32_t ebx, uint32_t ecx,
                      uint32_t edx) {
  return {.function = function,
          .index = index,
          .flags = 0,
          .eax = eax,
          .ebx = ebx,
          .ecx = ecx,
          .edx = edx,
          .padding = {}};
}

kvm_cpuid_entry2 vendor(uint32_t max_leaf, std::string_view name) {
  auto word = [&](size_t at) {
    uint32_t value;
    std::copy_n(name.data() + at, 4, reinterpret_cast<char*>(&value));
    return value;
  };
  return leaf(0, 0, max_leaf, word(0), word(8), word(4));
}

const Entries& kvm_leaves() {
  static const Entries leaves = {
      leaf(0x40000000, 0, 0x40000001, 0x4b4d564b, 0x564b4d56, 0x4d),
      leaf(0x40000001, 0, 0x0100'7FFB, 0, 0, 0),
  };
  return leaves;
}

// A host of eight cores with two threads each, seen from its APIC id 13.
Entries intel() {
  Entries entries = {
      vendor(0x1F, "GenuineIntel"),
      leaf(1, 0, 0x50654, 0x0D10'0800, 0xFFFA'32B7, 0x1FCB'FBFF),
      leaf(4, 0, 0x1C00'4121, 0x01C0'003F, 0x3F, 0),      // L1 data
      leaf(4, 1, 0x1C00'4122, 0x01C0'003F, 0x3F, 0),      // L1 instructions
      leaf(4, 2, 0x1C00'4143, 0x03C0'003F, 0x3FF, 0),     // L2
      leaf(4, 3, 0x1C03'C163, 0x0280'003F, 0xDFFF, 0x4),  // L3
      leaf(4, 4, 0, 0, 0, 0),
      leaf(6, 0, 0x4, 0, 0, 0),
      leaf(0xB, 0, 0, 0, 0, 13),
      leaf(0x1F, 0, 0, 0, 0, 13),
      leaf(0x80000000, 0, 0x80000008, 0, 0, 0),
      leaf(0x80000001, 0, 0, 0, 0x121, 0x2C10'0800),
      leaf(0x80000008, 0, 0x3027, 0x200, 0, 0),
  };
  entries.insert(entries.end(), kvm_leaves().begin(), kvm_leaves().end());
  return entries;
}

Entries amd() {
  Entries entries = {
      vendor(0x10, "AuthenticAMD"),
      leaf(1, 0, 0x800F12, 0x0D10'0800, 0xFED8'3203, 0x178B'FBFF),
      leaf(0x80000000, 0, 0x80000021, 0x68747541, 0x444d4163, 0x69746e65),
      leaf(0x80000001, 0, 0x800F12, 0, 0x0040'03F7, 0x2FD3'FBFF),
      leaf(0x80000008, 0, 0x3030, 0x1007, 0x400F, 0),
      leaf(0x8000000A, 0, 1, 8, 0, 0),
      leaf(0x8000001D, 0, 0x0000'4121, 0x01C0'003F, 0x3F, 0),
      leaf(0x8000001D, 1, 0x0000'4122, 0x00C0'003F, 0xFF, 0),
      leaf(0x8000001D, 2, 0x0000'4143, 0x01C0'003F, 0x3FF, 2),
      leaf(0x8000001D, 3, 0x0001'C163, 0x03C0'003F, 0x1FFF, 1),
      leaf(0x8000001D, 4, 0, 0, 0, 0),
      leaf(0x8000001E, 0, 13, 0x106, 1, 0),
      leaf(0x8000001F, 0, 0x0000'000E, 0x2F, 0xF, 1),
      leaf(0x80000026, 0, 1, 2, 0x100, 13),
  };
  entries.insert(entries.end(), kvm_leaves().begin(), kvm_leaves().end());
  return entries;
}

const kvm_cpuid_entry2* find(const Entries& entries, uint32_t function, uint32_t index = 0) {
  auto found = std::ranges::find_if(entries, [&](const kvm_cpuid_entry2& entry) {
    return entry.function == function && entry.index == index;
  });
  return found == entries.end() ? nullptr : &*found;
}

// Zeros where the leaf is absent, as KVM answers.
kvm_cpuid_entry2 get(const Entries& entries, uint32_t function, uint32_t index = 0) {
  auto* found = find(entries, function, index);
  return found ? *found : kvm_cpuid_entry2{};
}

uint32_t field(uint32_t value, unsigned high, unsigned low) {
  return value << (31 - high) >> (31 - high + low);
}

class CpuidTopology : public testing::TestWithParam<uint32_t> {};

TEST_P(CpuidTopology, IntelIsOneSocketOfCores) {
  const uint32_t cpus = GetParam();
  const uint32_t ids = std::bit_ceil(cpus);
  std::set<uint32_t> apic_ids;
  for (uint32_t cpu = 0; cpu < cpus; cpu++) {
    Entries entries = make_cpuid(intel(), {.cpu = cpu, .cpus = cpus});
    auto features = get(entries, 1);
    apic_ids.insert(field(features.ebx, 31, 24));
    EXPECT_EQ(field(features.ebx, 31, 24), cpu);
    EXPECT_EQ(field(features.ebx, 23, 16), ids);
    EXPECT_EQ(field(features.ebx, 15, 0), 0x0800u) << "CLFLUSH size stays the host's";
    EXPECT_EQ(field(features.edx, 28, 28), cpus > 1);

    for (uint32_t function : {0xBu, 0x1Fu}) {
      auto smt = get(entries, function, 0), core = get(entries, function, 1);
      EXPECT_EQ(smt.flags & core.flags, uint32_t{KVM_CPUID_FLAG_SIGNIFCANT_INDEX});
      EXPECT_EQ(smt.eax, 0u);
      EXPECT_EQ(smt.ebx, 1u);
      EXPECT_EQ(smt.ecx, 0x100u);
      EXPECT_EQ(1u << core.eax, ids);
      EXPECT_EQ(core.ebx, cpus);
      EXPECT_EQ(core.ecx, 0x201u);
      EXPECT_EQ(get(entries, function, 2).ecx, 2u) << "the list of levels ends";
      EXPECT_EQ(get(entries, function, 2).ebx, 0u);
      for (uint32_t index : {0, 1, 2}) EXPECT_EQ(get(entries, function, index).edx, cpu);
      EXPECT_EQ(smt.edx >> core.eax, 0u) << "all in package 0";
    }
    for (uint32_t index : {0, 1, 2}) {
      EXPECT_EQ(field(get(entries, 4, index).eax, 25, 14), 0u) << "a core's own cache";
      EXPECT_EQ(field(get(entries, 4, index).eax, 31, 26), ids - 1);
    }
    EXPECT_EQ(field(get(entries, 4, 3).eax, 25, 14), ids - 1);
    EXPECT_EQ(field(get(entries, 4, 3).eax, 13, 0), 0x0163u);
    EXPECT_EQ(get(entries, 4, 3).ecx, 0xDFFFu);
    EXPECT_EQ(get(entries, 4, 4).eax, 0u);
    EXPECT_EQ(get(entries, 0x80000008).ecx, 0u);
    EXPECT_EQ(find(entries, 0x8000001E), nullptr);
  }
  EXPECT_EQ(apic_ids.size(), cpus);
}

TEST_P(CpuidTopology, AmdIsOneSocketOfCores) {
  const uint32_t cpus = GetParam();
  for (uint32_t cpu = 0; cpu < cpus; cpu++) {
    Entries entries = make_cpuid(amd(), {.cpu = cpu, .cpus = cpus});
    auto features = get(entries, 1);
    EXPECT_EQ(field(features.ebx, 31, 24), cpu);
    EXPECT_EQ(field(features.ebx, 23, 16), cpus);
    EXPECT_EQ(field(features.edx, 28, 28), cpus > 1);
    EXPECT_EQ(field(get(entries, 0x80000001).ecx, 1, 1), cpus > 1) << "cores, not threads";

    auto sizes = get(entries, 0x80000008);
    EXPECT_EQ(field(sizes.ecx, 7, 0), cpus - 1);
    EXPECT_EQ(1u << field(sizes.ecx, 15, 12), std::bit_ceil(cpus));
    EXPECT_EQ(sizes.eax, 0x3030u);

    auto node = get(entries, 0x8000001E);
    EXPECT_EQ(node.eax, cpu);
    EXPECT_EQ(field(node.ebx, 7, 0), cpu);
    EXPECT_EQ(field(node.ebx, 15, 8), 0u) << "one thread in a core";
    EXPECT_EQ(node.ecx, 0u);

    for (uint32_t index : {0, 1, 2}) {
      EXPECT_EQ(field(get(entries, 0x8000001D, index).eax, 31, 14), 0u);
    }
    EXPECT_EQ(field(get(entries, 0x8000001D, 3).eax, 31, 14), cpus - 1);
    EXPECT_EQ(get(entries, 0xB, 1).ebx, cpus);
    EXPECT_EQ(get(entries, 0xB, 1).edx, cpu);
    EXPECT_EQ(find(entries, 0x1F, 1), nullptr) << "this host has no such leaf";
    EXPECT_EQ(find(entries, 0x80000026), nullptr) << "would tell the host's topology";
  }
}

INSTANTIATE_TEST_SUITE_P(Cpus, CpuidTopology, testing::Range(1u, layout::kMaxCpus + 1));

TEST(Cpuid, NothingIsOfferedThatNoSnapshotCouldCarry) {
  constexpr uint32_t kSubleaves = 1, kShadowStacks = 1 << 7, kOther = 0x1840'0736;
  Entries host = intel();
  std::erase_if(host, [](const auto& entry) { return entry.function == 7; });
  host.push_back(leaf(7, 0, kSubleaves, ~0u, kOther | kShadowStacks, ~0u));
  host.push_back(leaf(7, 1, 0x1C30, 0, 0, 0));
  Entries entries = make_cpuid(host, {});
  EXPECT_EQ(get(entries, 7).ecx, kOther);
  EXPECT_EQ(get(entries, 7).edx, ~0u);
  EXPECT_EQ(get(entries, 7, 1).eax, 0x1C30u);
  EXPECT_EQ(field(get(entries, 1).ecx, 5, 5), 0u) << "VMX";
  EXPECT_EQ(field(get(make_cpuid(amd(), {}), 0x80000001).ecx, 2, 2), 0u) << "SVM";
}

TEST(Cpuid, EveryLeafIsThereOnce) {
  for (const Entries& supported : {intel(), amd()}) {
    Entries entries =
        make_cpuid(supported, {.cpu = 1, .cpus = 3, .tsc_khz = 2'000'000, .tsc_deadline_timer = 1});
    std::set<std::pair<uint32_t, uint32_t>> seen;
    for (const auto& entry : entries) {
      EXPECT_TRUE(seen.emplace(entry.function, entry.index).second) << std::hex << entry.function;
      EXPECT_LE(entry.function & 0xFFFF, get(entries, entry.function & 0xF000'0000).eax & 0xFFFF)
          << std::hex << entry.function << " is beyond the highest leaf announced";
    }
  }
}

TEST(Cpuid, AnnouncesTheTopologyLeafWhereTheHostHasNone) {
  Entries old = amd();
  old[0].eax = 0x7;
  EXPECT_EQ(get(make_cpuid(old, {}), 0).eax, 0xBu);
  EXPECT_EQ(get(make_cpuid(amd(), {}), 0).eax, 0x10u);
}

TEST(Cpuid, TellsTheGuestThatItIsOne) {
  Entries supported = intel();
  supported[1].ecx &= ~(1u << 31);
  EXPECT_EQ(field(get(make_cpuid(supported, {}), 1).ecx, 31, 31), 1u);
}

TEST(Cpuid, TscDeadlineTimerFollowsKvm) {
  EXPECT_EQ(field(get(make_cpuid(intel(), {}), 1).ecx, 24, 24), 0u);
  EXPECT_EQ(field(get(make_cpuid(amd(), {.tsc_deadline_timer = true}), 1).ecx, 24, 24), 1u);
}

TEST(Cpuid, KeepsParavirtualFeaturesButAsyncPageFaults) {
  auto features = get(make_cpuid(amd(), {}), KVM_CPUID_FEATURES);
  for (unsigned gone :
       {KVM_FEATURE_ASYNC_PF, KVM_FEATURE_ASYNC_PF_VMEXIT, KVM_FEATURE_ASYNC_PF_INT}) {
    EXPECT_EQ(features.eax >> gone & 1, 0u) << gone;
  }
  EXPECT_EQ(features.eax, 0x0100'7FFBu & ~(1u << 4 | 1u << 10 | 1u << 14));
}

TEST(Cpuid, TellsTheTscFrequencyWhereItIsKnown) {
  Entries entries = make_cpuid(amd(), {.tsc_khz = 2'400'000});
  EXPECT_EQ(get(entries, 0x40000010).eax, 2'400'000u);
  EXPECT_EQ(get(entries, 0x40000010).ebx, 1'000'000u);
  EXPECT_EQ(get(entries, 0x40000000).eax, 0x40000010u);
  EXPECT_EQ(get(entries, 0x40000000).ebx, 0x4b4d564bu);

  entries = make_cpuid(amd(), {});
  EXPECT_EQ(find(entries, 0x40000010), nullptr);
  EXPECT_EQ(get(entries, 0x40000000).eax, 0x40000001u);
}

TEST(Cpuid, WithholdsNestedVirtualizationAndEncryption) {
  Entries entries = make_cpuid(intel(), {});
  EXPECT_EQ(field(get(intel(), 1).ecx, 5, 5), 1u);
  EXPECT_EQ(field(get(entries, 1).ecx, 5, 5), 0u);
  entries = make_cpuid(amd(), {});
  EXPECT_EQ(field(get(amd(), 0x80000001).ecx, 2, 2), 1u);
  EXPECT_EQ(field(get(entries, 0x80000001).ecx, 2, 2), 0u);
  EXPECT_EQ(find(entries, 0x8000000A), nullptr);
  EXPECT_EQ(find(entries, 0x8000001F), nullptr);
}

TEST(Cpuid, AddsNothingToAHostThatTellsNothing) {
  Entries entries = make_cpuid({}, {.cpu = 2, .cpus = 4, .tsc_khz = 1});
  for (const auto& entry : entries) EXPECT_EQ(entry.function, 0xBu);
}

}  // namespace
}  // namespace vmm
