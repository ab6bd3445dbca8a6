#include "snapshot/types.h"

#include <gtest/gtest.h>

namespace snapshot {
namespace {

TEST(TypesTest, AnIdIsReadBackFromItsText) {
  Id id{0x0123, 0xFEDCBA9876543210};
  EXPECT_EQ(id.text(), "0000000000000123fedcba9876543210");
  auto parsed = Id::parse(id.text());
  ASSERT_TRUE(parsed);
  EXPECT_EQ(*parsed, id);
}

TEST(TypesTest, AnythingElseIsNoId) {
  for (const char* text :
       {"", "12", "0000000000000123fedcba987654321g", "-000000000000123fedcba9876543210",
        "0000000000000123FEDCBA9876543210", "0000000000000123fedcba98765432100"}) {
    EXPECT_FALSE(Id::parse(text)) << text;
  }
}

TEST(TypesTest, RandomIdsDiffer) { EXPECT_NE(Id::random()->text(), Id::random()->text()); }

}  // namespace
}  // namespace snapshot
