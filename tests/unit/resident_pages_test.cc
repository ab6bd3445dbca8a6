#include "snapshot/resident_pages.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include "snapshot/page_bits.h"
#include "snapshot/types.h"
#include "vmm/base/mapping.h"

namespace snapshot {
namespace {

TEST(ResidentPagesTest, PagesThatWereWrittenAndNotDiscarded) {
  constexpr uint64_t kPages = 10000;
  auto memory = *base::Mapping::anonymous(kPages * kPageBytes);
  ASSERT_EQ(::madvise(memory.data(), memory.size(), MADV_NOHUGEPAGE), 0);
  for (uint64_t page : {0, 63, 64, 4095, 4096, 9999}) {
    memory.data()[page * kPageBytes] = std::byte{1};
  }
  ASSERT_EQ(::madvise(memory.data() + 64 * kPageBytes, kPageBytes, MADV_DONTNEED), 0);
  PageBits bits = make_page_bits(kPages);
  ASSERT_TRUE(find_resident(memory.data(), memory.size(), bits));
  std::vector<uint64_t> found;
  for_each_page(bits, 0, [&](uint64_t page) {
    found.push_back(page);
    return true;
  });
  EXPECT_EQ(found, (std::vector<uint64_t>{0, 63, 4095, 4096, 9999}));
}

}  // namespace
}  // namespace snapshot
