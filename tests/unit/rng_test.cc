#include "devices/virtio/rng.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "tests/support/fake_transport.h"

namespace virtio {
namespace {

using testing_support::FakeTransport;
using vmm::Gpa;

constexpr Gpa kData{0x100000};

class RngTest : public ::testing::Test {
 protected:
  std::unique_ptr<Rng> rng_ = std::move(*Rng::create("rng0"));
  FakeTransport transport_{*rng_};

  void SetUp() override { ASSERT_TRUE(transport_.activate()); }
  std::vector<std::byte> bytes_at(Gpa gpa, size_t size) {
    auto view = *transport_.memory().view(gpa, size);
    return {view.begin(), view.end()};
  }
  static bool all_zero(const std::vector<std::byte>& bytes) {
    return std::ranges::all_of(bytes, [](std::byte b) { return b == std::byte{0}; });
  }
  // Marks that laying out the rings left behind do not count.
  void forget_dirty() {
    std::vector<uint64_t> sink(1024);
    transport_.memory().take_dirty(0, sink);
  }
};

TEST_F(RngTest, FillsEveryBufferOfARequestAndMarksItDirty) {
  transport_.driver(0).add(0, {}, {{kData, 32}, {kData + 0x3000, 64}});
  forget_dirty();
  transport_.kick(0);
  EXPECT_EQ(transport_.driver(0).used_index(), 1);
  EXPECT_EQ(transport_.driver(0).used(0).id, 0u);
  EXPECT_EQ(transport_.driver(0).used(0).length, 96u);
  EXPECT_EQ(transport_.interrupts(0), 1);
  EXPECT_FALSE(all_zero(bytes_at(kData, 32)));
  EXPECT_FALSE(all_zero(bytes_at(kData + 0x3000, 64)));
  EXPECT_TRUE(all_zero(bytes_at(kData + 32, 64)));
  EXPECT_TRUE(transport_.memory().is_dirty(kData.gfn()));
  EXPECT_FALSE(transport_.memory().is_dirty((kData + 0x1000).gfn()));
  EXPECT_TRUE(transport_.memory().is_dirty((kData + 0x3000).gfn()));
  EXPECT_EQ(rng_->bytes(), 96u);
}

TEST_F(RngTest, GivesDifferentBytesEachTime) {
  transport_.driver(0).add(0, {}, {{kData, 32}});
  transport_.driver(0).add(1, {}, {{kData + 32, 32}});
  transport_.kick(0);
  EXPECT_EQ(transport_.driver(0).used_index(), 2);
  EXPECT_NE(bytes_at(kData, 32), bytes_at(kData + 32, 32));
}

TEST_F(RngTest, BoundsARequestAndSaysHowMuchItGave) {
  transport_.driver(0).add(0, {}, {{kData, 1 << 20}});
  transport_.kick(0);
  EXPECT_EQ(transport_.driver(0).used(0).length, Rng::kMaxRequestBytes);
  EXPECT_TRUE(all_zero(bytes_at(kData + Rng::kMaxRequestBytes, 4096)));
}

TEST_F(RngTest, ABusyQueueIsServedInTurns) {
  constexpr int kRequests = 12;
  for (uint16_t i = 0; i < kRequests; ++i) transport_.driver(0).add(i, {}, {{kData, 1 << 20}});
  transport_.kick(0);
  EXPECT_EQ(transport_.driver(0).used_index(), Rng::kTurnBytes / Rng::kMaxRequestBytes);
  while (transport_.poll(0)) {
  }
  EXPECT_EQ(transport_.driver(0).used_index(), kRequests);
  EXPECT_EQ(transport_.driver(0).used_flags(), 0);  // kicks are on again
}

TEST_F(RngTest, AnEmptyBufferGetsNothing) {
  transport_.driver(0).add(0, {}, {{kData, 0}});
  transport_.kick(0);
  EXPECT_EQ(transport_.driver(0).used_index(), 1);
  EXPECT_EQ(transport_.driver(0).used(0).length, 0u);
}

TEST_F(RngTest, AReadableDescriptorStopsTheDevice) {
  transport_.driver(0).add(0, {{kData, 32}}, {{kData, 32}});
  transport_.kick(0);
  ASSERT_TRUE(transport_.failure());
  EXPECT_EQ(*transport_.failure(), "entropy request with a readable descriptor");
  EXPECT_EQ(transport_.driver(0).used_index(), 0);
}

TEST_F(RngTest, ResetLeavesNoWatchAndNoWorkBehind) {
  for (uint16_t i = 0; i < 12; ++i) transport_.driver(0).add(i, {}, {{kData, 1 << 20}});
  transport_.kick(0);
  EXPECT_TRUE(rng_->reset());
  EXPECT_EQ(transport_.watches(), 0u);
  uint16_t used = transport_.driver(0).used_index();
  EXPECT_FALSE(transport_.poll(0));
  EXPECT_EQ(transport_.driver(0).used_index(), used);
}

TEST_F(RngTest, HasNoConfiguration) {
  std::array<uint8_t, 4> data{1, 2, 3, 4};
  rng_->read_config(0, data);
  EXPECT_EQ(data, (std::array<uint8_t, 4>{}));
}

}  // namespace
}  // namespace virtio
