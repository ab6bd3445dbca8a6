#include "cli/disk_argument.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace cli {
namespace {

TEST(DiskArgumentTest, NumberAndPath) {
  auto disk = parse_disk_argument("1=a=b.img");
  ASSERT_TRUE(disk);
  EXPECT_EQ(disk->disk, 1u);
  EXPECT_EQ(disk->path, "a=b.img");
  EXPECT_EQ(parse_disk_argument("0=/x")->disk, 0u);
}

TEST(DiskArgumentTest, AnythingElseIsRefused) {
  for (const char* text : {"", "=", "0", "0=", "=x", "vda=x", "-1=x", "256=x", "99999999999=x"}) {
    auto disk = parse_disk_argument(text);
    ASSERT_FALSE(disk) << text;
    EXPECT_THAT(disk.error().text(), testing::HasSubstr("as in 0=root.img"));
  }
}

}  // namespace
}  // namespace cli
