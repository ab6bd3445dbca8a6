#include "cli/size.h"

#include <gtest/gtest.h>

namespace cli {
namespace {

TEST(Size, ReadsBinaryUnits) {
  EXPECT_EQ(*parse_size("512K"), 512u << 10);
  EXPECT_EQ(*parse_size("256M"), 256u << 20);
  EXPECT_EQ(*parse_size("6G"), 6ull << 30);
  EXPECT_EQ(*parse_size("1T"), 1ull << 40);
}

TEST(Size, RefusesWhatIsNoSize) {
  for (const char* text : {"", "M", "256", "256m", "256MB", "-1M", "+1M", " 1M", "1.5G", "0x10M",
                           "99999999999999999999M"}) {
    auto size = parse_size(text);
    ASSERT_FALSE(size) << text;
    EXPECT_NE(size.error().text().find(text), std::string::npos);
  }
}

TEST(Size, RefusesASizeThatOverflows) {
  EXPECT_EQ(*parse_size("16777215T"), 16777215ull << 40);
  EXPECT_FALSE(parse_size("16777216T"));
}

TEST(Size, IsWrittenInTheLargestUnit) {
  EXPECT_EQ(format_size(0), "0 B");
  EXPECT_EQ(format_size(1023), "1023 B");
  EXPECT_EQ(format_size(256ull << 20), "256 MiB");
  EXPECT_EQ(format_size(3ull << 29), "1.5 GiB");
  EXPECT_EQ(format_size(5000ull << 40), "5000 TiB");
}

TEST(Number, IsBounded) {
  EXPECT_EQ(*parse_number("1", 1, 64), 1u);
  EXPECT_EQ(*parse_number("64", 1, 64), 64u);
  for (const char* text : {"0", "65", "", "x", "1x", "-1", "18446744073709551616"}) {
    EXPECT_FALSE(parse_number(text, 1, 64)) << text;
  }
}

}  // namespace
}  // namespace cli
