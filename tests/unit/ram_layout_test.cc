#include "snapshot/ram_layout.h"

#include <gtest/gtest.h>

#include "vmm/guest_memory.h"

namespace snapshot {
namespace {

TEST(RamLayoutTest, IsGuestMemorysOwn) {
  constexpr uint64_t kGiB = 1ull << 30;
  for (uint64_t bytes : {uint64_t{4096}, 256 * (kGiB >> 10), 3 * kGiB, 3 * kGiB + 4096, 6 * kGiB}) {
    auto memory = vmm::GuestMemory::create(bytes);
    ASSERT_TRUE(memory);
    const auto& expected = (*memory)->regions();
    std::vector<RamRegion> regions = ram_regions(bytes / kPageBytes);
    ASSERT_EQ(regions.size(), expected.size()) << bytes;
    uint64_t page = 0;
    for (size_t i = 0; i < regions.size(); ++i) {
      EXPECT_EQ(regions[i].start, expected[i].start);
      EXPECT_EQ(regions[i].pages * kPageBytes, expected[i].size);
      EXPECT_EQ(regions[i].first_page, page);
      page += regions[i].pages;
    }
  }
  EXPECT_TRUE(ram_regions(0).empty());
}

}  // namespace
}  // namespace snapshot
