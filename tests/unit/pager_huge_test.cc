// What the pager brings as huge pages: a snapshot in which nearly every page has content.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <random>
#include <thread>

#include "snapshot/pager.h"
#include "tests/support/small_store.h"

namespace snapshot {
namespace {

using snapshot_test::SmallStore;

constexpr uint64_t kForEver = 3'600'000;

class PagerHugeTest : public testing::Test {
 protected:
  static constexpr uint64_t kPages = SmallStore::kRamPages;
  static constexpr uint64_t kHuge = kPages / HugePages::kPages;  // whole ones
  static constexpr uint64_t kZeroPage = 700;

  void SetUp() override {
    if (auto userfault = Userfault::create(); !userfault) {
      GTEST_SKIP() << userfault.error().text();
    }
    SmallStore::Writes all;
    for (uint64_t page = 0; page < kPages; ++page) all[page] = page == kZeroPage ? 0 : 1;
    store_.take(Kind::kFull, all);
    // Some of it in another file.
    SmallStore::Writes changed;
    for (uint64_t page = 1000; page < 1200; ++page) changed[page] = 2;
    id_ = store_.take(Kind::kIncremental, changed);
    snapshot_ = store_.load(id_);
  }
  void TearDown() override { pager_.reset(); }

  void start() {
    pager_.reset();
    memory_ = *vmm::GuestMemory::create(kPages * kPageBytes);
    auto pager = Pager::create(*memory_, snapshot_, [](const base::Error& error) {
      // Whoever waits for a page would wait for ever.
      fmt::print(stderr, "{}\n", error.text());
      std::abort();
    });
    ASSERT_TRUE(pager) << pager.error().text();
    pager_ = std::move(*pager);
    ASSERT_TRUE(pager_->begin());
  }
  bool is_page(uint64_t number) const {
    std::string_view page(reinterpret_cast<const char*>(memory_->host(number)), kPageBytes);
    return page == store_.ram(id_, number);
  }
  bool is_zero(uint64_t number) const {
    std::string_view page(reinterpret_cast<const char*>(memory_->host(number)), kPageBytes);
    return page.find_first_not_of('\0') == std::string_view::npos;
  }

  SmallStore store_;
  Id id_;
  std::shared_ptr<const Snapshot> snapshot_;
  std::unique_ptr<vmm::GuestMemory> memory_;
  std::unique_ptr<Pager> pager_;
};

TEST_F(PagerHugeTest, WhatNobodyTouchesComesAsHugePages) {
  start();
  ASSERT_TRUE(pager_->bring_ahead());
  ASSERT_TRUE(pager_->wait_complete());
  EXPECT_EQ(pager_->counters().huge, kHuge);
  EXPECT_EQ(pager_->counters().faults, 0u);
  pager_.reset();
  for (uint64_t page = 0; page < kPages; ++page) ASSERT_TRUE(is_page(page)) << page;
}

TEST_F(PagerHugeTest, NeighboursComeWithAPageSomebodyWaitsFor) {
  start();
  ASSERT_TRUE(is_page(20));
  EXPECT_EQ(pager_->counters().beside, 15u);
  for (uint64_t page = 16; page < 32; ++page) ASSERT_TRUE(is_page(page)) << page;
  EXPECT_EQ(pager_->counters().faults, 1u);
  // Where the content of the file ends, or others have been: 992 to 999 are in one, 1000 on in
  // another.
  ASSERT_TRUE(is_page(1001));
  EXPECT_EQ(pager_->counters().beside, 15u + 7);
  ASSERT_TRUE(is_page(999));
  EXPECT_EQ(pager_->counters().beside, 15u + 7 + 7);
}

TEST_F(PagerHugeTest, WhereAPageIsThereAlreadyTheOthersComeOneByOne) {
  start();
  ASSERT_TRUE(is_page(5));
  memory_->host(5)[0] = std::byte{'!'};
  ASSERT_TRUE(pager_->bring_ahead());
  ASSERT_TRUE(pager_->wait_complete());
  EXPECT_EQ(pager_->counters().huge, kHuge - 1);
  EXPECT_EQ(memory_->host(5)[0], std::byte{'!'});
  for (uint64_t page = 6; page < kPages; ++page) ASSERT_TRUE(is_page(page)) << page;
}

TEST_F(PagerHugeTest, TheWorkingSetsComeFirst) {
  std::vector<uint64_t> set(HugePages::kPages / 2);
  for (size_t i = 0; i < set.size(); ++i) set[i] = 3 * HugePages::kPages + 2 * i;
  set.push_back(9);
  start();
  ASSERT_TRUE(pager_->bring_ahead(
      [set] { return Pager::Ahead{.working_set = set, .record_ms = kForEver}; }));
  while (pager_->counters().background < HugePages::kPages + 1) std::this_thread::yield();
  EXPECT_EQ(pager_->counters().huge, 1u);
  for (uint64_t page : set) ASSERT_TRUE(is_page(page)) << page;
}

// Several write what they have read, while huge pages take the place of what they wait for.
TEST_F(PagerHugeTest, NothingThatIsWrittenMeanwhileIsLost) {
  uint64_t huge = 0;
  for (uint64_t seed = 0; seed < 30; ++seed) {
    start();
    std::atomic<uint64_t> wrong = 0;
    std::vector<std::thread> threads;
    for (uint64_t t = 0; t < 3; ++t) {
      threads.emplace_back([&, t] {
        std::minstd_rand random(static_cast<uint32_t>(seed * 3 + t + 1));
        for (int i = 0; i < 40; ++i) {
          uint64_t page = random() % (kPages / 3) * 3 + t;  // each thread has its own
          std::byte* place = memory_->host(page);
          auto mark = static_cast<std::byte>(seed + 1);
          if (place[kPageBytes - 1] != mark && !is_page(page)) ++wrong;
          place[kPageBytes - 1] = mark;
        }
      });
    }
    ASSERT_TRUE(pager_->bring_ahead());
    for (std::thread& thread : threads) thread.join();
    ASSERT_TRUE(pager_->wait_complete());
    huge += pager_->counters().huge;
    EXPECT_EQ(wrong, 0u);
    std::vector<bool> marked(kPages);
    for (uint64_t t = 0; t < 3; ++t) {
      std::minstd_rand random(static_cast<uint32_t>(seed * 3 + t + 1));
      for (int i = 0; i < 40; ++i) marked[random() % (kPages / 3) * 3 + t] = true;
    }
    for (uint64_t page = 0; page < kPages; ++page) {
      std::string expected = store_.ram(id_, page);
      if (marked[page]) expected.back() = static_cast<char>(seed + 1);
      std::string_view found(reinterpret_cast<const char*>(memory_->host(page)), kPageBytes);
      ASSERT_TRUE(found == expected) << "page " << page << ", seed " << seed;
    }
  }
  RecordProperty("huge pages", std::to_string(huge));
}

// The range crosses two huge pages, and is given back while they come.
TEST_F(PagerHugeTest, WhatIsGivenBackMeanwhileStaysZero) {
  for (uint64_t round = 0; round < 60; ++round) {
    start();
    const uint64_t first = (1 + round % 6) * HugePages::kPages + 300, count = 600;
    ASSERT_TRUE(pager_->bring_ahead());
    std::this_thread::sleep_for(std::chrono::microseconds(100 * (round % 40)));
    ASSERT_TRUE(memory_->discard(memory_->gpa_of(first), count * kPageBytes));
    ASSERT_TRUE(is_zero(first)) << round;
    ASSERT_TRUE(pager_->wait_complete());
    for (uint64_t page = first; page < first + count; ++page) {
      ASSERT_TRUE(is_zero(page)) << "page " << page << ", round " << round;
    }
    ASSERT_TRUE(is_page(first - 1));
    ASSERT_TRUE(is_page(first + count));
  }
}

// While the memory map changes nothing can be provided; who waits meanwhile gets what is his.
TEST_F(PagerHugeTest, WhoWaitsWhileOthersGivePagesBackGetsHisOwn) {
  constexpr uint64_t kGivenBack = 512;  // the last pages, which nobody touches
  for (int round = 0; round < 20; ++round) {
    start();
    std::atomic<uint64_t> wrong = 0;
    std::atomic<bool> end = false;
    std::thread giver([&] {
      for (uint64_t i = 0; !end; i = (i + 1) % kGivenBack) {
        (void)memory_->discard(memory_->gpa_of(kPages - 1 - i), kPageBytes);
      }
    });
    std::vector<std::thread> threads;
    for (uint64_t t = 0; t < 3; ++t) {
      threads.emplace_back([&, t] {
        for (uint64_t page = 16 * t; page < kPages - kGivenBack - 16; page += 48) {
          wrong += !is_page(page + 3);
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    end = true;
    giver.join();
    ASSERT_EQ(wrong, 0u) << round;
    for (uint64_t page = 0; page < kPages - kGivenBack - 64; ++page) {
      ASSERT_TRUE(is_page(page)) << page;
    }
  }
}

TEST_F(PagerHugeTest, WhoWaitsForAPageOfOneIsWoken) {
  for (int round = 0; round < 100; ++round) {
    start();
    std::atomic<uint64_t> right = 0;
    std::vector<std::thread> threads;
    for (uint64_t t = 0; t < 3; ++t) {
      threads.emplace_back([&, t] {
        for (uint64_t huge = t; huge < kHuge; ++huge) {
          right += is_page(huge * HugePages::kPages + 100 + 50 * t);
        }
      });
    }
    ASSERT_TRUE(pager_->bring_ahead());
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(right, kHuge + kHuge - 1 + kHuge - 2);
  }
}

}  // namespace
}  // namespace snapshot
