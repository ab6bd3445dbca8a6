#include "vmm/cpu_features.h"

#include <asm/kvm_para.h>
#include <gtest/gtest.h>

namespace vmm {
namespace {

kvm_cpuid_entry2 leaf(uint32_t function, uint32_t index, uint32_t eax, uint32_t ebx, uint32_t ecx,
                      uint32_t edx) {
  return {.function = function,
          .index = index,
          .flags = function == 7 ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0u,
          .eax = eax,
          .ebx = ebx,
          .ecx = ecx,
          .edx = edx,
          .padding = {}};
}
// "AuthenticAMD"
const kvm_cpuid_entry2 kAmd = leaf(0, 0, 0x10, 0x68747541, 0x444D4163, 0x69746E65);

std::string refusal(const CpuidTable& saved, const CpuidTable& offered) {
  auto checked = check_features(saved, offered);
  return checked ? "" : checked.error().text();
}

TEST(CpuFeatures, AHostWithMoreIsGoodEnough) {
  EXPECT_EQ(refusal({kAmd, leaf(7, 0, 0, 0x20, 0, 0)}, {kAmd, leaf(7, 0, 0, 0x10020, 0, 1)}), "");
  EXPECT_EQ(refusal({}, {leaf(7, 0, 0, 1, 0, 0)}), "");
}

TEST(CpuFeatures, EveryMissingOneIsNamed) {
  CpuidTable saved{kAmd, leaf(1, 0, 0, 0, 1u << 28 | 1, 1),
                   leaf(7, 0, 0, 1u << 5 | 1u << 16 | 1u << 31, 0, 1), leaf(7, 1, 1u << 5, 0, 0, 0),
                   leaf(0x8000'0021, 0, 1u << 9, 0, 0, 0)};
  EXPECT_EQ(refusal(saved, {kAmd, leaf(1, 0, 0, 0, 0, 1)}),
            "this host's processor lacks features that the guest uses: pni, avx, avx2, avx512f, "
            "avx512vl, CPUID 0x7.0 EDX bit 0, avx512_bf16, CPUID 0x80000021.0 EAX bit 9; restore "
            "on a host that has them");
}

TEST(CpuFeatures, WhatFollowsTheGuestsOwnRegistersDoesNotCount) {
  EXPECT_EQ(refusal({kAmd, leaf(1, 0, 0, 0, 1u << 27, 0), leaf(7, 0, 0, 0, 1u << 4, 0)}, {kAmd}),
            "");
}

TEST(CpuFeatures, AnotherVendorIsRefused) {
  CpuidTable intel{leaf(0, 0, 0x10, 0x756E6547, 0x6C65746E, 0x49656E69)};
  EXPECT_EQ(refusal({kAmd}, intel),
            "the guest ran on a processor of AuthenticAMD, this host's is of GenuineIntel");
}

class CpuidSection : public ::testing::Test {
 protected:
  static base::Result<std::vector<CpuidTable>> take(std::vector<std::byte> data) {
    base::SectionReader reader({{"cpuid", kCpuidSectionVersion, std::move(data)}});
    return take_cpuid(reader);
  }
};

TEST_F(CpuidSection, ComesBackAsItWas) {
  std::vector<CpuidTable> tables{{kAmd, leaf(7, 0, 1, 2, 3, 4)}, {}};
  std::vector<std::byte> data;
  encode_cpuid(tables, base::Encoder(data));
  auto back = take(data);
  ASSERT_TRUE(back) << back.error().text();
  ASSERT_EQ(back->size(), 2u);
  ASSERT_EQ((*back)[0].size(), 2u);
  EXPECT_EQ((*back)[0][0].ebx, kAmd.ebx);
  EXPECT_EQ((*back)[0][1].edx, 4u);
  EXPECT_TRUE((*back)[1].empty());
}

TEST_F(CpuidSection, ImpossibleCountsAreRefused) {
  for (std::vector<uint32_t> words : {std::vector<uint32_t>{0},
                                      {65},
                                      {0xFFFF'FFFF},
                                      {1, 257},
                                      {1, 0x8000'0000},
                                      {1, 1},
                                      {2, 0},
                                      {1, 0, 0}}) {
    auto bytes = std::as_bytes(std::span(words));
    auto back = take({bytes.begin(), bytes.end()});
    ASSERT_FALSE(back) << words[0];
    EXPECT_TRUE(back.error().text().starts_with("section 'cpuid' "));
  }
}

}  // namespace
}  // namespace vmm
