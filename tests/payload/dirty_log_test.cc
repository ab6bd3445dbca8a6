#include "vmm/dirty_log.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <memory>
#include <thread>
#include <vector>

#include "tests/payload/guest.h"
#include "vmm/layout.h"
#include "vmm/machine.h"

namespace payload_test {
namespace {

using vmm::DirtyLog;
using vmm::Gpa;
using vmm::kPageShift;
using vmm::kPageSize;

class DirtyLogTest : public ::testing::Test {
 protected:
  std::unique_ptr<Guest> guest_;
  std::vector<uint64_t> bitmap_;

  void SetUp() override {
    if (auto reason = cannot_run()) GTEST_SKIP() << *reason;
  }
  vmm::Machine& machine() { return guest_->machine(); }
  DirtyLog& log() { return machine().dirty_log(); }

  void make(const std::string& command_line, uint64_t memory_bytes = 64 << 20,
            bool log_from_start = true) {
    auto guest = Guest::create({.payload = "dirty",
                                .command_line = command_line,
                                .memory_bytes = memory_bytes,
                                .log_from_start = log_from_start});
    ASSERT_TRUE(guest) << guest.error().text();
    guest_ = std::move(*guest);
    bitmap_.assign(log().words(), 0);
  }
  // The first RAM page of the working set, once the guest has printed it.
  uint64_t first_page() {
    std::string output = guest_->wait_for_output("tsc_khz=");
    Gpa start{std::strtoull(field(output, "gpa").c_str(), nullptr, 16)};
    state_ = Gpa{std::strtoull(field(output, "state").c_str(), nullptr, 16)};
    return machine().memory().ram_page(start.gfn()).value();
  }
  uint64_t step() { return *machine().memory().load<uint64_t>(state_ + step_offset()); }
  void wait_for_steps(uint64_t count) {
    uint64_t end = step() + count;
    while (step() < end) {
      ASSERT_FALSE(machine().stop_reason());
      std::this_thread::yield();
    }
  }
  bool dirty(uint64_t page) const { return (bitmap_[page / 64] >> (page % 64)) & 1; }
  uint64_t count(uint64_t first, uint64_t pages) const {
    uint64_t set = 0;
    for (uint64_t page = first; page < first + pages; ++page) set += dirty(page);
    return set;
  }
  void fetch() {
    auto fetched = log().fetch(bitmap_);
    ASSERT_TRUE(fetched) << fetched.error().text();
  }
  void clear_all() {
    for (uint64_t first = 0; first < log().pages(); first += DirtyLog::kMostPages) {
      uint64_t pages = std::min(DirtyLog::kMostPages, log().pages() - first);
      auto cleared = log().clear(first, pages, std::span(bitmap_).subspan(first / 64));
      ASSERT_TRUE(cleared) << cleared.error().text();
    }
  }

 private:
  // `step` is the last word of struct DirtyState (dirty.c): found by watching which word counts.
  uint64_t step_offset() {
    if (step_offset_ != 0) return step_offset_;
    using Page = std::array<uint64_t, kPageSize / 8>;
    Page before = *machine().memory().load<Page>(state_);
    while (step_offset_ == 0) {
      std::this_thread::yield();
      Page after = *machine().memory().load<Page>(state_);
      for (size_t i = 0; i < after.size(); ++i) {
        if (after[i] != before[i]) step_offset_ = i * 8;
      }
    }
    return step_offset_;
  }
  Gpa state_;
  uint64_t step_offset_ = 0;
};

TEST_F(DirtyLogTest, NamesEveryPageTheGuestWritesAndNoOther) {
  make("size=8M rounds=2");
  machine().run();
  uint64_t first = first_page();
  ASSERT_TRUE(guest_->wait());
  machine().pause();
  fetch();
  EXPECT_EQ(count(first, 2048), 2048u);
  EXPECT_EQ(count(first + 2048, log().pages() - first - 2048), 0u);
}

TEST_F(DirtyLogTest, KeepsItsBitsUntilTheyAreCleared) {
  make("size=8M");
  machine().run();
  uint64_t first = first_page();
  wait_for_steps(3 * 2048);
  machine().pause();
  fetch();
  fetch();
  EXPECT_EQ(count(first, 2048), 2048u);
  clear_all();
  fetch();
  EXPECT_EQ(count(0, log().pages()), 0u);

  machine().run();
  wait_for_steps(3 * 2048);
  machine().pause();
  fetch();
  EXPECT_EQ(count(first, 2048), 2048u);
  EXPECT_EQ(count(first + 2048, log().pages() - first - 2048), 0u);
}

TEST_F(DirtyLogTest, ClearsOnlyTheBitsItIsGiven) {
  make("size=8M");
  machine().run();
  uint64_t first = first_page();
  wait_for_steps(3 * 2048);
  machine().pause();
  fetch();
  ASSERT_EQ(first % 64, 0u);
  std::array<uint64_t, 2> odd{0xAAAA'AAAA'AAAA'AAAA, 0xAAAA'AAAA'AAAA'AAAA};
  ASSERT_TRUE(log().clear(first + 64, 128, odd));
  fetch();
  EXPECT_EQ(count(first, 2048), 2048u - 64);
  for (uint64_t page = first + 64; page < first + 192; ++page)
    EXPECT_EQ(dirty(page), page % 2 == 0);
}

TEST_F(DirtyLogTest, StartedUnderARunningGuestItHasEveryPage) {
  make("size=8M", 64 << 20, false);
  EXPECT_FALSE(log().started());
  machine().run();
  uint64_t first = first_page();
  wait_for_steps(3 * 2048);
  ASSERT_TRUE(log().start());
  EXPECT_TRUE(log().started());
  fetch();
  EXPECT_EQ(count(0, log().pages()), log().pages());
  clear_all();
  wait_for_steps(3 * 2048);
  machine().pause();
  fetch();
  EXPECT_EQ(count(first, 2048), 2048u);
  EXPECT_EQ(count(first + 2048, log().pages() - first - 2048), 0u);
  ASSERT_TRUE(log().start()) << "once more does nothing";
  fetch();
  EXPECT_EQ(count(first + 2048, log().pages() - first - 2048), 0u);
}

// A page written between the clear and the next look is never lost, whenever that is.
class DirtyLogStartTest : public DirtyLogTest, public testing::WithParamInterface<bool> {};
INSTANTIATE_TEST_SUITE_P(, DirtyLogStartTest, testing::Bool(), [](const auto& from_start) {
  return from_start.param ? "from_start" : "started_later";
});

TEST_P(DirtyLogStartTest, NamesWhatIsWrittenWhileItIsCleared) {
  make("size=4M order=random", 64 << 20, GetParam());
  machine().run();
  uint64_t first = first_page();
  wait_for_steps(3 * 1024);
  ASSERT_TRUE(log().start());
  std::vector<std::array<uint64_t, 2>> copied(1024);
  auto head = [&](uint64_t page) {  // the page's generation and step: its first words
    std::array<uint64_t, 2> words;
    auto* from = reinterpret_cast<volatile uint64_t*>(machine().memory().host(first + page));
    words = {from[2], from[4]};
    return words;
  };
  for (int round = 0; round < 20; ++round) {
    fetch();
    clear_all();
    for (uint64_t page = 0; page < 1024; ++page) copied[page] = head(page);
    machine().hold();
    ASSERT_TRUE(log().peek(bitmap_));
    for (uint64_t page = 0; page < 1024; ++page) {
      if (head(page) != copied[page]) {
        EXPECT_TRUE(dirty(first + page)) << page;
      }
    }
    machine().release();
  }
}

TEST_F(DirtyLogTest, HasWhatTheHostWrites) {
  make("size=4M");
  fetch();  // what the loader wrote
  EXPECT_TRUE(dirty(0x100));
  auto& memory = machine().memory();
  Gpa gpa{50 << 20};
  fetch();
  EXPECT_EQ(count(0, log().pages()), 0u) << "the marks were taken";
  ASSERT_TRUE(memory.store<uint16_t>(gpa + (kPageSize - 1), 7));
  ASSERT_TRUE(log().peek(bitmap_));
  EXPECT_EQ(count(0, log().pages()), 2u);
  fetch();
  EXPECT_EQ(count(0, log().pages()), 2u) << "a look leaves the marks";
  EXPECT_TRUE(dirty(gpa.gfn().value));
  EXPECT_TRUE(dirty(gpa.gfn().value + 1));
  EXPECT_FALSE(memory.is_dirty(gpa.gfn()));
  fetch();
  EXPECT_EQ(count(0, log().pages()), 0u);
}

TEST_F(DirtyLogTest, NumbersPagesAcrossTheHole) {
  make("start=0x100000000 size=4M", 4 * vmm::layout::kGiB + 7 * kPageSize);
  constexpr uint64_t kHigh = 3 * vmm::layout::kGiB >> kPageShift;
  machine().run();
  EXPECT_EQ(first_page(), kHigh);
  EXPECT_EQ(machine().memory().gpa_of(kHigh), vmm::layout::kHighRamStart);
  wait_for_steps(3 * 1024);
  machine().pause();
  ASSERT_TRUE(machine().memory().store<uint64_t>(vmm::layout::kHighRamStart + (64 << 20), 1));
  ASSERT_TRUE(machine().memory().store<uint64_t>(machine().memory().gpa_of(log().pages() - 1), 1));
  fetch();
  EXPECT_EQ(count(kHigh, 1024), 1024u);
  EXPECT_EQ(count(kHigh + 1024, log().pages() - kHigh - 1024), 2u);
  EXPECT_TRUE(dirty(kHigh + (64 << 20 >> kPageShift)));
  EXPECT_TRUE(dirty(log().pages() - 1));

  // A piece may reach over the end of the first slot.
  std::vector<uint64_t> all(DirtyLog::kMostPages / 64, ~0ull);
  ASSERT_TRUE(log().clear(kHigh - 256, DirtyLog::kMostPages, all));
  fetch();
  EXPECT_EQ(count(kHigh, 1024), 1024u - 256);
  EXPECT_FALSE(dirty(kHigh + 255));
  EXPECT_TRUE(dirty(kHigh + 256));
  clear_all();  // the last piece is not a whole word
  fetch();
  EXPECT_EQ(count(0, log().pages()), 0u);
}

}  // namespace
}  // namespace payload_test
