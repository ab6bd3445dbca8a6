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
  std::vector<uint64_t> bits{7};
  int seen = 0;
  EXPECT_FALSE(for_each_page(bits, 0, [&](uint64_t) { return ++seen < 2; }));
  EXPECT_EQ(seen, 2);
}

TEST(PageBitsTest, BitsAreAdded) {
  std::vector<uint64_t> bits{1, 0};
  add_bits(bits, std::vector<uint64_t>{2, 4});
  EXPECT_EQ(bits, (std::vector<uint64_t>{3, 4}));
}

// Words are looked at several at once; each length and place, beside what one at a time gives.
TEST(PageBitsTest, NoPlaceIsPassedOver) {
  for (uint64_t words = 0; words <= 25; ++words) {
    for (uint64_t page = 0; page < words * 64; page += 21) {
      PageBits bits(words);
      bits[page / 64] |= 1ull << (page % 64);
      bits[words - 1] |= 1ull << 63;
      std::vector<uint64_t> expected{page, words * 64 - 1}, seen;
      if (expected[0] == expected[1]) expected.pop_back();
      for_each_page(bits, 0, [&](uint64_t found) {
        seen.push_back(found);
        return true;
      });
      EXPECT_EQ(seen, expected) << words << " words";
      EXPECT_EQ(count_bits(bits), expected.size());
      std::vector<uint64_t> sum(words, 2);
      add_bits(sum, bits);
      for (uint64_t word = 0; word < words; ++word) EXPECT_EQ(sum[word], bits[word] | 2);
    }
  }
}

}  // namespace
}  // namespace snapshot
