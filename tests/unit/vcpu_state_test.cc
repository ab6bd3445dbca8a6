#include "vmm/vcpu_state.h"

#include <gtest/gtest.h>

#include <array>
#include <cstring>

namespace vmm {
namespace {

constexpr size_t kXsaveBytes = 8192;

VcpuState example() {
  VcpuState state;
  state.mp_state.mp_state = KVM_MP_STATE_HALTED;
  state.regs.rip = 0x1234;
  state.sregs.cr3 = 0x5000;
  state.xsave.assign(kXsaveBytes, std::byte{7});
  state.tsc_khz = 2'500'000;
  state.tsc_offset = ~0ull - 5;
  std::array<uint32_t, 2> indices{0x174, 0xC000'0080};
  state.msrs = MsrTable(indices);
  state.msrs.entries()[1].data = 0xD01;
  state.lapic.regs[0x20] = 3;
  state.events.nmi.masked = 1;
  return state;
}
std::vector<std::byte> encoded(const VcpuState& state) {
  std::vector<std::byte> data;
  state.encode(base::Encoder(data));
  return data;
}
base::Result<VcpuState> decode(const std::vector<std::byte>& data, size_t bytes = kXsaveBytes) {
  return VcpuState::decode(base::Decoder(data), bytes, "section 'vcpu3'");
}
// Where the sizes stand in the section.
constexpr size_t kXsaveSizeAt = sizeof(kvm_mp_state) + sizeof(kvm_regs) + sizeof(kvm_sregs2);
constexpr size_t kMsrCountAt =
    kXsaveSizeAt + 4 + kXsaveBytes + sizeof(kvm_xcrs) + sizeof(kvm_debugregs) + 4 + 8;

TEST(VcpuState, ComesBackAsItWas) {
  auto data = encoded(example());
  auto back = decode(data);
  ASSERT_TRUE(back) << back.error().text();
  EXPECT_EQ(encoded(*back), data);
  EXPECT_EQ(back->regs.rip, 0x1234u);
  EXPECT_EQ(back->tsc_offset, ~0ull - 5);
  ASSERT_EQ(back->msrs.count(), 2u);
  EXPECT_EQ(back->msrs.entries()[1].index, 0xC000'0080);
  EXPECT_EQ(back->msrs.entries()[1].data, 0xD01u);
}

TEST(VcpuState, IsPaddedForAHostWithMoreExtendedState) {
  auto back = decode(encoded(example()), kXsaveBytes + 4096);
  ASSERT_TRUE(back) << back.error().text();
  ASSERT_EQ(back->xsave.size(), kXsaveBytes + 4096);
  EXPECT_EQ(back->xsave[kXsaveBytes - 1], std::byte{7});
  EXPECT_EQ(back->xsave[kXsaveBytes], std::byte{0});
}

TEST(VcpuState, OfAHostWithMoreExtendedStateIsRefused) {
  auto back = decode(encoded(example()), 4096);
  ASSERT_FALSE(back);
  EXPECT_EQ(back.error().text(),
            "section 'vcpu3' has 8192 bytes of extended processor state, KVM on this host takes "
            "4096");
}

TEST(VcpuState, EveryTruncationIsRefused) {
  auto data = encoded(example());
  for (size_t size = 0; size < data.size(); size += size < 600 ? 1 : 97) {
    auto back = decode({data.begin(), data.begin() + static_cast<ptrdiff_t>(size)});
    ASSERT_FALSE(back) << size;
    EXPECT_TRUE(back.error().text().starts_with("section 'vcpu3' is too short"));
  }
  data.push_back({});
  EXPECT_EQ(decode(data).error().text(), "section 'vcpu3' has 1 bytes too many");
}

TEST(VcpuState, ImpossibleCountsAreRefused) {
  for (size_t at : {kXsaveSizeAt, kMsrCountAt}) {
    for (uint32_t count : {0xFFFF'FFFFu, 0x1000'0000u, 70'000u, 4095u}) {
      auto data = encoded(example());
      std::memcpy(data.data() + at, &count, 4);
      auto back = decode(data);
      ASSERT_FALSE(back) << at << " " << count;
      EXPECT_TRUE(back.error().text().starts_with("section 'vcpu3' ")) << back.error().text();
    }
  }
}

}  // namespace
}  // namespace vmm
