#include "devices/rtc.h"

#include <gtest/gtest.h>

#include <vector>

#include "tests/support/registers.h"

namespace devices {
namespace {

constexpr uint64_t kSecondNs = 1'000'000'000;

class RtcTest : public testing::Test {
 protected:
  uint8_t in(uint8_t index) {
    test::write_register<uint8_t>(rtc_, 0, index);
    return test::read_register<uint8_t>(rtc_, 1);
  }
  void out(uint8_t index, uint8_t value) {
    test::write_register<uint8_t>(rtc_, 0, index);
    test::write_register<uint8_t>(rtc_, 1, value);
  }
  // Century, year, month, day, day of the week, hours, minutes, seconds.
  std::vector<int> time() {
    std::vector<int> registers;
    for (uint8_t index : {0x32, 9, 8, 7, 6, 4, 2, 0}) registers.push_back(in(index));
    return registers;
  }

  uint64_t now_ns_ = 951'782'399ull * kSecondNs;  // Mon 2000-02-28 23:59:59
  Rtc rtc_{[this] { return now_ns_; }};
};

TEST_F(RtcTest, GivesTheHostsTimeInBcd) {
  EXPECT_EQ(time(), (std::vector<int>{0x20, 0x00, 0x02, 0x28, 0x02, 0x23, 0x59, 0x59}));
  now_ns_ += kSecondNs;
  EXPECT_EQ(time(), (std::vector<int>{0x20, 0x00, 0x02, 0x29, 0x03, 0x00, 0x00, 0x00}));
  now_ns_ = 946'684'799ull * kSecondNs;  // Fri 1999-12-31 23:59:59
  EXPECT_EQ(time(), (std::vector<int>{0x19, 0x99, 0x12, 0x31, 0x06, 0x23, 0x59, 0x59}));
}

TEST_F(RtcTest, GivesBinaryWhereAsked) {
  out(0x0B, 0x06);
  EXPECT_EQ(time(), (std::vector<int>{20, 0, 2, 28, 2, 23, 59, 59}));
}

TEST_F(RtcTest, KeepsTwelveHoursWhereAsked) {
  out(0x0B, 0x00);
  EXPECT_EQ(in(4), 0x91) << "11 pm";
  now_ns_ += kSecondNs;
  EXPECT_EQ(in(4), 0x12) << "midnight is 12 am";
  now_ns_ += 12 * 3600 * kSecondNs;
  EXPECT_EQ(in(4), 0x92) << "noon is 12 pm";
  now_ns_ += 3600 * kSecondNs;
  EXPECT_EQ(in(4), 0x81);
}

TEST_F(RtcTest, AnnouncesAnUpdate244MicrosecondsAhead) {
  EXPECT_EQ(in(0x0A), 0x26);
  now_ns_ += kSecondNs - 244'000 - 1;
  EXPECT_EQ(in(0x0A), 0x26);
  now_ns_ += 1;
  EXPECT_EQ(in(0x0A), 0xA6);
  out(0x0B, 0x82);
  EXPECT_EQ(in(0x0A), 0x26) << "no updates while SET is on";
  out(0x0B, 0x02);
  now_ns_ += 244'000;
  EXPECT_EQ(in(0x0A), 0x26);
}

TEST_F(RtcTest, IsValidAndHasNoInterrupts) {
  EXPECT_EQ(in(0x0D), 0x80);
  out(0x0B, 0x72);
  EXPECT_EQ(in(0x0B), 0x02);
  EXPECT_EQ(in(0x0C), 0);
}

TEST_F(RtcTest, TimeCannotBeSet) {
  auto before = time();
  for (uint8_t index : {0x32, 9, 8, 7, 6, 4, 2, 0, 0x0C, 0x0D}) out(index, 0x11);
  EXPECT_EQ(time(), before);
  EXPECT_EQ(in(0x0D), 0x80);
}

TEST_F(RtcTest, HoldsTheOtherBytes) {
  EXPECT_EQ(in(0x10), 0);
  out(0x8F, 0x5A);  // the top bit of the index masks NMI
  EXPECT_EQ(in(0x0F), 0x5A);
  out(0x7F, 0xA5);
  EXPECT_EQ(in(0x7F), 0xA5);
  out(0x01, 0x30);
  EXPECT_EQ(in(0x01), 0x30);
}

TEST_F(RtcTest, TakesBothPortsAtOnce) {
  test::write_register<uint16_t>(rtc_, 0, 0x5A'40);
  EXPECT_EQ(test::read_register<uint16_t>(rtc_, 0), 0x5A'FF);
}

TEST_F(RtcTest, StateGoesRound) {
  out(0x0B, 0x06);
  out(0x40, 0x77);
  Rtc::State state = rtc_.save();
  Rtc copy([this] { return now_ns_; });
  ASSERT_TRUE(copy.restore(state));
  EXPECT_EQ(copy.save(), state);
  EXPECT_EQ(test::read_register<uint8_t>(copy, 1), 0x77) << "the index is kept";

  std::vector<std::byte> bytes, again;
  base::Encoder encoder(bytes), other(again);
  rtc_.save(encoder);
  base::Decoder decoder(bytes);
  ASSERT_TRUE(copy.restore(decoder) && decoder.finish("RTC"));
  copy.save(other);
  EXPECT_EQ(again, bytes);
}

TEST_F(RtcTest, RefusesStatesThatNoClockCanHave) {
  auto refuses = [&](auto change) {
    Rtc::State state = Rtc().save();
    change(state);
    return !rtc_.restore(state);
  };
  EXPECT_FALSE(refuses([](Rtc::State&) {}));
  EXPECT_TRUE(refuses([](Rtc::State& s) { s.index = 0x80; }));
  EXPECT_TRUE(refuses([](Rtc::State& s) { s.cmos[0x0A] |= 0x80; }));
  EXPECT_TRUE(refuses([](Rtc::State& s) { s.cmos[0x0B] |= 0x40; }));
}

}  // namespace
}  // namespace devices
