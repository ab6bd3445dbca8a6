#include "vmm/guest_memory.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <thread>
#include <vector>

#include "vmm/layout.h"

namespace vmm {
namespace {

TEST(GuestMemory, SplitsAroundTheHoleBelowFourGiB) {
  auto memory = GuestMemory::create(6 * layout::kGiB);
  ASSERT_TRUE(memory) << memory.error().text();
  ASSERT_EQ((*memory)->regions().size(), 2u);
  EXPECT_EQ((*memory)->regions()[0].size, 3 * layout::kGiB);
  EXPECT_EQ((*memory)->regions()[1].start, layout::kHighRamStart);
  EXPECT_EQ((*memory)->regions()[1].size, 3 * layout::kGiB);
  EXPECT_TRUE((*memory)->store<uint32_t>(layout::kHighRamStart, 7));
  EXPECT_FALSE((*memory)->store<uint32_t>(layout::kPciWindow, 7));
}

TEST(GuestMemory, RefusesRangesThatLeaveRamOrWrapAround) {
  auto memory = *GuestMemory::create(1 << 20);
  std::array<std::byte, 16> buffer{};
  EXPECT_TRUE(memory->read(Gpa{(1 << 20) - 16}, buffer));
  EXPECT_FALSE(memory->read(Gpa{(1 << 20) - 15}, buffer));
  EXPECT_FALSE(memory->read(Gpa{~0ull - 7}, buffer));
  EXPECT_FALSE(memory->view(Gpa{16}, ~0ull));
  EXPECT_FALSE(memory->view(Gpa{16}, ~0ull - 15));
  EXPECT_FALSE(memory->load_acquire16(Gpa{1}));
}

TEST(GuestMemory, MarksEveryPageAWriteTouchesAndOnlyThose) {
  auto memory = *GuestMemory::create(1 << 20);
  std::array<std::byte, 8192> data{};
  ASSERT_TRUE(memory->write(Gpa{3 * 4096 + 4095}, std::span(data).first(2)));
  EXPECT_FALSE(memory->is_dirty(Gfn{2}));
  EXPECT_TRUE(memory->is_dirty(Gfn{3}));
  EXPECT_TRUE(memory->is_dirty(Gfn{4}));
  EXPECT_FALSE(memory->is_dirty(Gfn{5}));
  ASSERT_TRUE(memory->write(Gpa{200 * 4096}, std::span(data).first(4096)));
  EXPECT_TRUE(memory->is_dirty(Gfn{200}));
  EXPECT_FALSE(memory->is_dirty(Gfn{201}));

  std::array<uint64_t, 4> bits{};
  bits[0] = 1;  // what was there stays: marks are OR-ed in
  memory->take_dirty(0, bits);
  EXPECT_EQ(bits[0], 1u | 1u << 3 | 1u << 4);
  EXPECT_EQ(bits[3], 1ull << (200 - 192));
  EXPECT_FALSE(memory->is_dirty(Gfn{3}));
}

// Taken while they are made: none is lost, whichever comes first.
TEST(GuestMemory, MarksThatAreMadeWhileOthersAreTakenAreNotLost) {
  constexpr uint64_t kPages = 64 * 64 * 3;  // three words of the summary
  auto memory = *GuestMemory::create(kPages * 4096);
  std::vector<uint64_t> seen(kPages / 64);
  for (int round = 0; round < 20; ++round) {
    std::atomic<bool> done = false;
    std::thread device([&] {
      for (uint64_t page = 0; page < kPages; ++page) {
        memory->mark_dirty(Gpa{(page * 4099 % kPages) * 4096}, 1);
      }
      done = true;
    });
    std::ranges::fill(seen, 0);
    while (!done) memory->take_dirty(0, seen);
    device.join();
    std::vector<uint64_t> looked = seen;
    memory->peek_dirty(0, looked);
    memory->take_dirty(0, seen);
    EXPECT_EQ(std::ranges::count(seen, ~0ull), std::ssize(seen));
    EXPECT_EQ(looked, seen);
  }
}

TEST(GuestMemory, ReadingAndViewingDoNotMark) {
  auto memory = *GuestMemory::create(1 << 20);
  std::array<std::byte, 64> buffer{};
  ASSERT_TRUE(memory->read(Gpa{0}, buffer));
  ASSERT_TRUE(memory->view(Gpa{0}, 4096));
  ASSERT_TRUE(memory->load_acquire16(Gpa{0}));
  EXPECT_FALSE(memory->is_dirty(Gfn{0}));
  ASSERT_TRUE(memory->store_release16(Gpa{0}, 1));
  EXPECT_TRUE(memory->is_dirty(Gfn{0}));
}

TEST(GuestMemory, DiscardedPagesAreZeroNotResidentAndDirty) {
  auto memory = *GuestMemory::create(1 << 20);
  std::array<std::byte, 4 * 4096> data;
  data.fill(std::byte{0xA5});
  ASSERT_TRUE(memory->write(Gpa{8 * 4096}, data));
  std::array<uint64_t, 4> bits{};
  memory->take_dirty(0, bits);

  ASSERT_TRUE(memory->discard(Gpa{9 * 4096}, 2 * 4096));
  std::array<unsigned char, 4> resident{};
  auto shown = *memory->view(Gpa{8 * 4096}, data.size());
  ASSERT_EQ(::mincore(const_cast<std::byte*>(shown.data()), shown.size(), resident.data()), 0);
  EXPECT_EQ(resident, (std::array<unsigned char, 4>{1, 0, 0, 1}));
  for (size_t page = 0; page < 4; ++page) {
    bool gone = page == 1 || page == 2;
    EXPECT_EQ(memory->is_dirty(Gfn{8 + page}), gone) << page;
    EXPECT_EQ(shown[page * 4096 + 4095], gone ? std::byte{0} : std::byte{0xA5}) << page;
  }
}

TEST(GuestMemory, DiscardsOnlyWholePagesInsideRam) {
  auto memory = *GuestMemory::create(1 << 20);
  ASSERT_TRUE(memory->store<uint32_t>(Gpa{4096}, 7));
  EXPECT_FALSE(memory->discard(Gpa{4096}, 100));
  EXPECT_FALSE(memory->discard(Gpa{4096 + 512}, 4096));
  EXPECT_FALSE(memory->discard(Gpa{4096}, 1 << 20));
  EXPECT_FALSE(memory->discard(Gpa{~0ull << 12}, 4096));
  EXPECT_EQ(*memory->load<uint32_t>(Gpa{4096}), 7u);
}

}  // namespace
}  // namespace vmm
