#include "cli/snapshot_text.h"

#include <gtest/gtest.h>

namespace cli {
namespace {

using snapshot::Id;

TEST(SnapshotTextTest, AnIdIsAsLongAsItMustBe) {
  Id a{0x1234567800000000, 1}, b{0x12345678ff000000, 2}, c{0x1234567800000000, 2};
  EXPECT_EQ(short_id(a, {}), "12345678");
  std::vector<Id> two{a, b};
  EXPECT_EQ(short_id(a, two), "123456780");
  EXPECT_EQ(short_id(b, two), "12345678f");
  std::vector<Id> three{a, b, c};
  EXPECT_EQ(short_id(a, three), a.text());
  EXPECT_EQ(short_id(b, three), "12345678f");
}

TEST(SnapshotTextTest, TimesAndDurations) {
  EXPECT_EQ(format_age(0), "0 s");
  EXPECT_EQ(format_age(-5), "0 s");
  EXPECT_EQ(format_age(59'999'999'999), "59 s");
  EXPECT_EQ(format_age(60'000'000'000), "1 min");
  EXPECT_EQ(format_age(7200'000'000'000), "2 h");
  EXPECT_EQ(format_age(3 * 86400'000'000'000), "3 d");
  EXPECT_EQ(format_duration(187'400), "187 us");
  EXPECT_EQ(format_duration(2'440'000), "2.4 ms");
  EXPECT_EQ(format_duration(1'500'000'000), "1.5 s");
  EXPECT_EQ(format_time(1'000'000'000'000'000'000).size(), 19u);
  EXPECT_FALSE(format_time(INT64_MIN).empty());
  EXPECT_FALSE(format_time(INT64_MAX).empty());
}

TEST(SnapshotTextTest, NothingReachesTheTerminalButText) {
  EXPECT_EQ(plain_text("job1"), "job1");
  EXPECT_EQ(plain_text("J\xC3\xBCrgen"), "J\xC3\xBCrgen");
  EXPECT_EQ(plain_text("a\x1b[2J\nb"), "a?[2J?b");
  EXPECT_EQ(plain_text("\xC2\x9B"), "?");          // CSI as one character
  EXPECT_EQ(plain_text("\xFF\xC3"), "??");         // no UTF-8, a cut sequence
  EXPECT_EQ(plain_text("\xED\xA0\x80"), "???");    // a surrogate
  EXPECT_EQ(plain_text("\xC0\x8A"), "??");         // an overlong line feed
  EXPECT_EQ(plain_text("a\xE2\x82\xAC", 3), "a");  // never half a character
  EXPECT_EQ(plain_text(std::string(100, 'x')).size(), 64u);
}

}  // namespace
}  // namespace cli
