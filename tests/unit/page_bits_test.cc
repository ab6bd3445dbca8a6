#include "snapshot/page_bits.h"

#include <gtest/gtest.h>

namespace snapshot {
namespace {

TEST(PageBitsTest, PagesAreVisitedInOrder) {
  PageBits bits = make_page_bits(130);
  ASSERT_EQ(bits.size(), 3u);
  bits[0] = 1ull << 63 | 1;
  bits[2] = 2;
  std::vector<uint64_t> seen;
  EXPECT_TRUE(for_each_page(bits, 1000, [&](uint64_t page) {
    seen.push_back(page);
    return true;
  }));
  EXPECT_EQ(seen, (std::vector<uint64_t>{1000, 1063, 1129}));
  EXPECT_EQ(count_bits(bits), 3u);
}

TEST(PageBitsTest, AVisitorMayStop) {
  PageBits bits{7};
  int seen = 0;
  EXPECT_FALSE(for_each_page(bits, 0, [&](uint64_t) { return ++seen < 2; }));
  EXPECT_EQ(seen, 2);
}

TEST(PageBitsTest, BitsAreAdded) {
  PageBits bits{1, 0};
  add_bits(bits, PageBits{2, 4});
  EXPECT_EQ(bits, (PageBits{3, 4}));
}

}  // namespace
}  // namespace snapshot
