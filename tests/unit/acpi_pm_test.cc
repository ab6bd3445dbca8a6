#include "devices/acpi_pm.h"

#include <gtest/gtest.h>

#include "tests/support/fake_line.h"
#include "tests/support/registers.h"

namespace devices {
namespace {

class AcpiPmTest : public testing::Test {
 protected:
  template <typename T>
  T in(uint64_t offset) {
    return test::read_register<T>(pm_, offset);
  }
  template <typename T>
  void out(uint64_t offset, T value) {
    test::write_register<T>(pm_, offset, value);
  }

  test::LineRecord sci_;
  int power_offs_ = 0;
  int resets_ = 0;
  uint64_t now_ns_ = 5'000'000'000;
  AcpiPm pm_{std::make_unique<test::FakeLine>(sci_),
             {.on_power_off = [this] { power_offs_++; }, .on_reset = [this] { resets_++; }},
             [this] { return now_ns_; }};
};

TEST_F(AcpiPmTest, PowerButtonRaisesTheSciUntilItIsCleared) {
  out<uint16_t>(2, 1 << 8);
  EXPECT_FALSE(sci_.high);
  pm_.press_power_button();
  EXPECT_TRUE(sci_.high);
  EXPECT_EQ(in<uint16_t>(0), 1 << 8);
  out<uint16_t>(0, 0);
  EXPECT_TRUE(sci_.high) << "a zero clears nothing";
  out<uint16_t>(0, 1 << 8);
  EXPECT_FALSE(sci_.high);
  EXPECT_EQ(in<uint16_t>(0), 0);
}

TEST_F(AcpiPmTest, ADisabledButtonWaitsForItsEnable) {
  pm_.press_power_button();
  EXPECT_FALSE(sci_.high);
  out<uint8_t>(3, 1);
  EXPECT_TRUE(sci_.high);
  out<uint8_t>(3, 0);
  EXPECT_FALSE(sci_.high);
  EXPECT_EQ(in<uint32_t>(0), 1u << 8);
}

TEST_F(AcpiPmTest, SleepTypeFiveWithEnablePowersOff) {
  EXPECT_EQ(in<uint16_t>(4) & 1, 1) << "SCI_EN: always in ACPI mode";
  out<uint16_t>(4, 5 << 10);
  EXPECT_EQ(power_offs_, 0);
  out<uint16_t>(4, 1 << 13 | 3 << 10);
  EXPECT_EQ(power_offs_, 0) << "another state than S5";
  out<uint16_t>(4, 1 << 13 | 5 << 10);
  EXPECT_EQ(power_offs_, 1);
  EXPECT_EQ(in<uint16_t>(4), 5 << 10 | 1) << "SLP_EN is write-only";
}

TEST_F(AcpiPmTest, OnlyTheResetValueResets) {
  out<uint8_t>(0xC, 0);
  out<uint8_t>(0xC, 6);
  EXPECT_EQ(resets_, 0);
  out<uint8_t>(0xC, 1);
  EXPECT_EQ(resets_, 1);
  EXPECT_EQ(power_offs_, 0);
}

TEST_F(AcpiPmTest, TimerCountsAt3579545HzAndWraps) {
  uint32_t start = in<uint32_t>(8);
  now_ns_ += 1'000'000'000;
  EXPECT_EQ(in<uint32_t>(8) - start, 3'579'545u);
  now_ns_ += 1'199 * 1'000'000'000ull;
  EXPECT_EQ(in<uint32_t>(8) - start, static_cast<uint32_t>(1'200 * 3'579'545ull));
  out<uint32_t>(8, 0);
  EXPECT_EQ(in<uint32_t>(8) - start, static_cast<uint32_t>(1'200 * 3'579'545ull)) << "read-only";
}

TEST_F(AcpiPmTest, TakesAccessesOfAnyWidth) {
  out<uint64_t>(0, ~0ull);
  EXPECT_EQ(in<uint64_t>(0) >> 48, 0u);
  EXPECT_EQ(power_offs_, 0) << "sleep type 7";
  out<uint64_t>(8, 0x1'0000'0000ull);
  EXPECT_EQ(resets_, 1);
  EXPECT_EQ(in<uint32_t>(0xC), 0u);
}

TEST_F(AcpiPmTest, AGeneralPurposeEventRaisesTheInterruptWhereItIsEnabled) {
  pm_.raise_event(0);
  EXPECT_EQ(in<uint8_t>(0xE), 1);
  EXPECT_FALSE(sci_.high);
  out<uint8_t>(0xF, 0xFF);
  EXPECT_EQ(in<uint8_t>(0xF), 1) << "there is only event 0";
  EXPECT_TRUE(sci_.high);
  out<uint8_t>(0xE, 0xFE);
  EXPECT_TRUE(sci_.high);
  out<uint8_t>(0xE, 1);
  EXPECT_FALSE(sci_.high);
  pm_.raise_event(5);
  EXPECT_EQ(in<uint8_t>(0xE), 0);
}

TEST_F(AcpiPmTest, StateGoesRound) {
  out<uint16_t>(2, 1 << 8);
  out<uint16_t>(4, 3 << 10);
  pm_.press_power_button();
  out<uint8_t>(0xF, 1);
  pm_.raise_event(0);
  now_ns_ += 2'000'000'000;
  AcpiPm::State state = pm_.save();
  EXPECT_EQ(state.timer, 2 * 3'579'545u);

  test::LineRecord sci;
  uint64_t other_host_ns = 77;
  AcpiPm copy(std::make_unique<test::FakeLine>(sci), {}, [&] { return other_host_ns; });
  ASSERT_TRUE(copy.restore(state));
  EXPECT_EQ(copy.save(), state);
  EXPECT_TRUE(sci.high);
  other_host_ns += 1'000'000'000;
  EXPECT_EQ(test::read_register<uint32_t>(copy, 8), 3 * 3'579'545u);

  std::vector<std::byte> bytes, again;
  base::Encoder encoder(bytes), other(again);
  pm_.save(encoder);
  base::Decoder decoder(bytes);
  ASSERT_TRUE(copy.restore(decoder) && decoder.finish("PM"));
  copy.save(other);
  EXPECT_EQ(again, bytes);
}

TEST_F(AcpiPmTest, RefusesStatesThatNoDeviceCanHave) {
  EXPECT_FALSE(pm_.restore({.status = 1}));
  EXPECT_FALSE(pm_.restore({.enable = 1 << 14}));
  EXPECT_FALSE(pm_.restore({.sleep_type = 8}));
  EXPECT_FALSE(pm_.restore({.event_status = 2}));
  EXPECT_FALSE(pm_.restore({.event_enable = 2}));
}

}  // namespace
}  // namespace devices
