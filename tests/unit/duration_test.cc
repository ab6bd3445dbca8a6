#include "cli/duration.h"

#include <gtest/gtest.h>

namespace cli {
namespace {

using std::chrono::nanoseconds;

TEST(DurationTest, NumbersWithAUnit) {
  EXPECT_EQ(*parse_duration("300us"), nanoseconds(300'000));
  EXPECT_EQ(*parse_duration("50ms"), nanoseconds(50'000'000));
  EXPECT_EQ(*parse_duration("30s"), nanoseconds(30'000'000'000));
  EXPECT_EQ(*parse_duration("2h"), nanoseconds(7'200'000'000'000));
}

TEST(DurationTest, AnythingElseIsRefused) {
  for (const char* text : {"", "s", "30", "3.5s", "-1s", "30 s", "30x", "9000000h"}) {
    EXPECT_FALSE(parse_duration(text)) << text;
  }
}

TEST(DurationTest, WrittenForPeople) {
  EXPECT_EQ(format_duration(nanoseconds(213'456)), "213 us");
  EXPECT_EQ(format_duration(nanoseconds(1'340'000'000)), "1.34 s");
  EXPECT_EQ(format_duration(nanoseconds(12'300'000)), "12.3 ms");
}

}  // namespace
}  // namespace cli
