#include "devices/pci/msix.h"

#include <gtest/gtest.h>

#include "tests/support/fake_interrupts.h"
#include "vmm/base/endian.h"

namespace pci {
namespace {

class MsixTest : public ::testing::Test {
 protected:
  static constexpr uint16_t kEnable = 0x8000, kFunctionMask = 0x4000;

  test::FakeInterrupts interrupts_;
  ConfigSpace config_{{.vendor = 1,
                       .device = 2,
                       .revision = 0,
                       .class_code = 0,
                       .subsystem_vendor = 0,
                       .subsystem = 0}};
  Msix msix_ = std::move(*Msix::create(interrupts_, 3));

  void SetUp() override { msix_.add_capability(config_, 0x4000, 0x5000); }

  void control(uint16_t value) {
    uint8_t data[2];
    base::store_le(data, 0, value);
    config_.write(0x42, data);
    msix_.config_written(config_);
  }
  void write32(uint32_t offset, uint32_t value) {
    uint8_t data[4];
    base::store_le(data, 0, value);
    msix_.write_table(offset, data);
  }
  uint32_t read32(uint32_t offset) {
    uint8_t data[4];
    msix_.read_table(offset, data);
    return base::load_le<uint32_t>(data);
  }
  uint64_t pending() {
    uint8_t data[8];
    msix_.read_pending(0, data);
    return base::load_le<uint64_t>(data);
  }
  void set_entry(uint32_t index, uint64_t address, uint32_t data, uint32_t entry_control = 0) {
    write32(index * 16, static_cast<uint32_t>(address));
    write32(index * 16 + 4, static_cast<uint32_t>(address >> 32));
    write32(index * 16 + 8, data);
    write32(index * 16 + 12, entry_control);
  }
  unsigned signals(size_t index) { return interrupts_.vector(index).signals; }
};

TEST_F(MsixTest, CapabilitySaysWhereTableAndPendingBitsAre) {
  EXPECT_EQ(config_.get16(0x40) & 0xFF, 0x11);
  EXPECT_EQ(config_.get16(0x42), 2);  // three vectors, disabled, not masked
  uint8_t data[8];
  config_.read(0x44, data);
  EXPECT_EQ(base::load_le<uint32_t>(data, 0), 0x4000u);
  EXPECT_EQ(base::load_le<uint32_t>(data, 4), 0x5000u);
  control(0xFFFF);
  EXPECT_EQ(config_.get16(0x42), 0xC002);  // the size stays
}

TEST_F(MsixTest, SignalsWithTheMessageOfTheEntry) {
  control(kEnable);
  set_entry(1, 0x1'FEE0'1000, 0x4123);
  msix_.signal(1);
  EXPECT_EQ(signals(1), 1u);
  EXPECT_EQ(interrupts_.vector(1).message, (vmm::MsiMessage{0x1'FEE0'1000, 0x4123}));
  EXPECT_EQ(signals(0), 0u);
  EXPECT_EQ(pending(), 0u);
}

TEST_F(MsixTest, RoutesOnceForManySignalsAndAgainForAnotherMessage) {
  control(kEnable);
  set_entry(0, 0xFEE00000, 1);
  for (int i = 0; i < 5; ++i) msix_.signal(0);
  EXPECT_EQ(interrupts_.vector(0).messages_set, 1u);
  set_entry(0, 0xFEE00000, 2);
  msix_.signal(0);
  EXPECT_EQ(interrupts_.vector(0).messages_set, 2u);
  EXPECT_EQ(interrupts_.vector(0).message.data, 2u);
  EXPECT_EQ(signals(0), 6u);
}

TEST_F(MsixTest, AMessageOfZeroesIsRoutedToo) {
  control(kEnable);
  set_entry(0, 0, 0);
  msix_.signal(0);
  EXPECT_EQ(interrupts_.vector(0).messages_set, 1u);
  EXPECT_EQ(interrupts_.unrouted(), 0u);
}

TEST_F(MsixTest, EntriesStartMasked) {
  control(kEnable);
  EXPECT_EQ(read32(12), 1u);
  msix_.signal(0);
  EXPECT_EQ(signals(0), 0u);
  EXPECT_EQ(pending(), 1u);
}

TEST_F(MsixTest, WhatWasMaskedIsSentOnceWhenUnmasked) {
  control(kEnable);
  set_entry(2, 0xFEE00000, 7, 1);
  msix_.signal(2);
  msix_.signal(2);
  EXPECT_EQ(pending(), 4u);
  write32(2 * 16 + 12, 0);
  EXPECT_EQ(signals(2), 1u);
  EXPECT_EQ(pending(), 0u);
  write32(2 * 16 + 12, 1);
  write32(2 * 16 + 12, 0);
  EXPECT_EQ(signals(2), 1u);
}

TEST_F(MsixTest, TheFunctionMaskAndDisableHoldAllBack) {
  set_entry(0, 0xFEE00000, 1);
  set_entry(1, 0xFEE00000, 2);
  msix_.signal(0);  // not enabled yet
  control(kEnable | kFunctionMask);
  msix_.signal(1);
  EXPECT_EQ(signals(0) + signals(1), 0u);
  EXPECT_EQ(pending(), 3u);
  control(kEnable);
  EXPECT_EQ(signals(0), 1u);
  EXPECT_EQ(signals(1), 1u);
  EXPECT_EQ(pending(), 0u);
}

TEST_F(MsixTest, ResetForgetsWhatIsPending) {
  control(kEnable);
  msix_.signal(0);
  msix_.clear_pending();
  EXPECT_EQ(pending(), 0u);
  set_entry(0, 0xFEE00000, 1);
  EXPECT_EQ(signals(0), 0u);
}

TEST_F(MsixTest, ARefusedMessageStaysPendingAndGoesOutOnceItIsGood) {
  control(kEnable);
  set_entry(0, 0xFEE00000, 1);
  interrupts_.refuse_messages = true;
  msix_.signal(0);
  EXPECT_EQ(signals(0), 0u);
  EXPECT_EQ(pending(), 1u);
  interrupts_.refuse_messages = false;
  write32(12, 0);
  EXPECT_EQ(signals(0), 1u);
}

TEST_F(MsixTest, NoVectorAndVectorsThatAreNotThereDoNothing) {
  control(kEnable);
  msix_.signal(0xFFFF);
  msix_.signal(3);
  EXPECT_EQ(pending(), 0u);
}

TEST_F(MsixTest, TableTakesWordsAndPairsOfWordsOnly) {
  const uint8_t pair[8] = {1, 2, 3, 4, 5, 6, 7, 8};
  msix_.write_table(16, pair);
  EXPECT_EQ(read32(16), 0x04030201u);
  EXPECT_EQ(read32(20), 0x08070605u);
  for (size_t size : {1u, 2u, 3u, 5u, 6u, 7u}) {
    msix_.write_table(0, std::span(pair).first(size));
    EXPECT_EQ(read32(0), 0u) << size;
  }
  msix_.write_table(2, std::span(pair).first(4));
  EXPECT_EQ(read32(0), 0u);
  EXPECT_EQ(read32(4), 0u);
  uint8_t byte[1];
  msix_.read_table(17, byte);
  EXPECT_EQ(byte[0], 2);
}

TEST_F(MsixTest, BeyondTableAndPendingBitsThereIsNothing) {
  write32(3 * 16, 0xFFFFFFFF);
  EXPECT_EQ(read32(3 * 16), 0u);
  const uint8_t ones[8] = {255, 255, 255, 255, 255, 255, 255, 255};
  msix_.write_table(3 * 16 - 4, ones);  // the last word, and one beyond
  EXPECT_EQ(read32(3 * 16 - 4), 0xFFFFFFFFu);
  EXPECT_EQ(read32(3 * 16), 0u);
  uint8_t data[8] = {1, 1, 1, 1, 1, 1, 1, 1};
  msix_.read_pending(0xFF8, data);
  EXPECT_EQ(base::load_le<uint64_t>(data), 0u);
}

TEST(Msix, CreationFailsWhereVectorsRunOut) {
  test::FakeInterrupts interrupts;
  interrupts.vectors_left = 2;
  EXPECT_FALSE(Msix::create(interrupts, 3));
}

TEST(Msix, PendingBitsOfManyVectors) {
  test::FakeInterrupts interrupts;
  Msix msix = std::move(*Msix::create(interrupts, 130));
  EXPECT_EQ(msix.table_bytes(), 130u * 16);
  EXPECT_EQ(msix.pending_bytes(), 24u);
  msix.signal(129);
  uint8_t data[8];
  msix.read_pending(16, data);
  EXPECT_EQ(base::load_le<uint64_t>(data), 2u);
}

}  // namespace
}  // namespace pci
