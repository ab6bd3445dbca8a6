#include "snapshot/pager.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <future>
#include <numeric>
#include <optional>
#include <random>
#include <thread>

#include "tests/support/gated_storage.h"
#include "tests/support/small_store.h"
#include "vmm/base/aside.h"

namespace snapshot {
namespace {

using snapshot_test::SmallStore;

// Nothing comes unasked for as long as the pager records.
constexpr uint64_t kNeverAhead = 3'600'000;

class PagerTest : public testing::Test {
 protected:
  static constexpr uint64_t kPages = SmallStore::kRamPages;

  void SetUp() override {
    if (auto userfault = Userfault::create(); !userfault) {
      GTEST_SKIP() << userfault.error().text();
    }
    SmallStore::Writes all;
    for (uint64_t page = 0; page < kPages; page += 3) all[page] = 1;
    store_.take(Kind::kFull, all);
    SmallStore::Writes changed;
    for (uint64_t page = 0; page < kPages; page += 7) changed[page] = page % 2 == 0 ? 2 : 0;
    id_ = store_.take(Kind::kIncremental, changed);
    memory_ = *vmm::GuestMemory::create(kPages * kPageBytes);
  }
  void TearDown() override { pager_.reset(); }

  void start_serving(base::Aside* aside = nullptr) {
    auto pager = Pager::create(*memory_, store_.load(id_), on_damage_);
    ASSERT_TRUE(pager) << pager.error().text();
    pager_ = std::move(*pager);
    ASSERT_TRUE(pager_->begin(aside));
  }
  void start(const Pager::Ahead& ahead = {}) {
    ASSERT_NO_FATAL_FAILURE(start_serving());
    ASSERT_TRUE(pager_->bring_ahead([ahead] { return ahead; }));
  }
  std::string_view page(uint64_t number) const {
    return {reinterpret_cast<const char*>(memory_->host(number)), kPageBytes};
  }
  void expect_page(uint64_t number) const {
    ASSERT_TRUE(page(number) == store_.ram(id_, number)) << "page " << number;
  }
  // A byte in the middle of each, which is of a page.
  void damage_packs() const {
    for (const auto& entry : std::filesystem::directory_iterator(store_.path() + "/packs")) {
      std::fstream file(entry.path(), std::ios::in | std::ios::out | std::ios::binary);
      file.seekp(static_cast<std::streamoff>(std::filesystem::file_size(entry.path()) / 2));
      file.put('#');
    }
  }
  static std::vector<uint64_t> shuffled_pages() {
    std::vector<uint64_t> pages(kPages);
    std::iota(pages.begin(), pages.end(), 0);
    std::ranges::shuffle(pages, std::mt19937_64(1));
    return pages;
  }

  SmallStore store_;
  Id id_;
  std::unique_ptr<vmm::GuestMemory> memory_;
  std::function<void(base::Error)> on_damage_ = [](const base::Error& error) {
    // Whoever waits for a page would wait for ever.
    fmt::print(stderr, "{}\n", error.text());
    std::abort();
  };
  std::unique_ptr<Pager> pager_;
};

TEST_F(PagerTest, WhoTouchesAPageFindsWhatTheSnapshotHolds) {
  start();
  for (uint64_t number : shuffled_pages()) expect_page(number);
  EXPECT_TRUE(pager_->wait_complete());
}

TEST_F(PagerTest, PagesThatNobodyTouchesComeByThemselves) {
  start();
  ASSERT_TRUE(pager_->wait_complete());
  EXPECT_EQ(pager_->counters().faults, 0u);
  EXPECT_EQ(pager_->counters().huge, 0u) << "most of their pages are zero";
  pager_.reset();
  for (uint64_t number = 0; number < kPages; ++number) expect_page(number);
}

TEST_F(PagerTest, AllOfThemByFaultsAlone) {
  start({.record_ms = kNeverAhead});
  auto order = shuffled_pages();
  for (uint64_t number : order) expect_page(number);
  EXPECT_EQ(pager_->counters().background, 0u);
  EXPECT_EQ(pager_->counters().faults + pager_->counters().beside, kPages);
  // Each once: who waited, and what came with it.
  auto touched = pager_->touched();
  EXPECT_EQ(touched.front(), order.front());
  std::ranges::sort(touched);
  std::ranges::sort(order);
  EXPECT_EQ(touched, order);
}

TEST_F(PagerTest, NeighboursInTheFileComeWithAPage) {
  start({.record_ms = kNeverAhead});
  // 19 to 23 are zero, 18 and 24 are not.
  expect_page(22);
  EXPECT_EQ(pager_->touched(), (std::vector<uint64_t>{22, 19, 20, 21, 23}));
  expect_page(23);
  EXPECT_EQ(pager_->counters().faults, 1u);
  EXPECT_EQ(pager_->counters().beside, 4u);
  expect_page(24);
  EXPECT_EQ(pager_->counters().faults, 2u);
}

TEST_F(PagerTest, NothingComesAheadUntilThatIsSaid) {
  start_serving();
  for (uint64_t number : {6, 3000}) expect_page(number);
  EXPECT_EQ(pager_->counters().background, 0u);
  EXPECT_FALSE(pager_->complete());
  std::thread::id asked;
  ASSERT_TRUE(pager_->bring_ahead([&asked] {
    asked = std::this_thread::get_id();
    return Pager::Ahead{.working_set = {9}};
  }));
  ASSERT_TRUE(pager_->wait_complete());
  EXPECT_EQ(pager_->counters().faults, 2u);
  for (uint64_t number = 0; number < kPages; ++number) expect_page(number);
  EXPECT_NE(asked, std::thread::id());
  EXPECT_NE(asked, std::this_thread::get_id()) << "who says so has better things to do";
}

TEST_F(PagerTest, WhatIsBroughtNowIsWaitedForByNobody) {
  start_serving();
  ASSERT_TRUE(pager_->bring_now(3));
  ASSERT_TRUE(pager_->bring_now(3));
  expect_page(3);
  EXPECT_EQ(pager_->counters().faults, 0u);
  ASSERT_TRUE(pager_->bring_now(1));  // zero: who touches it waits
  expect_page(1);
  EXPECT_EQ(pager_->counters().faults, 1u);
  ASSERT_TRUE(pager_->bring_now(1));
  ASSERT_TRUE(pager_->bring_ahead());
  ASSERT_TRUE(pager_->wait_complete());
  for (uint64_t number = 0; number < kPages; ++number) expect_page(number);
}

TEST_F(PagerTest, WhoWaitsForAPageDoesNotWaitForTheReader) {
  test::Gate gate("pager-ahead");
  auto store = *Store::open(test::gate_reads(*open_storage(store_.path()), gate));
  auto pager = Pager::create(*memory_, *store->load(id_), [](const base::Error&) {});
  ASSERT_TRUE(pager) << pager.error().text();
  pager_ = std::move(*pager);
  ASSERT_TRUE(pager_->begin());
  ASSERT_TRUE(pager_->bring_ahead());
  bool reads = gate.wait_for_thread();
  auto all = std::async(std::launch::async, [&] {
    for (uint64_t number : shuffled_pages()) expect_page(number);
  });
  bool served = all.wait_for(std::chrono::seconds(30)) == std::future_status::ready;
  EXPECT_EQ(pager_->counters().background, 0u);
  gate.open();
  all.get();
  EXPECT_TRUE(reads);
  EXPECT_TRUE(served) << "a page came only when the reader went on";
  EXPECT_TRUE(pager_->wait_complete());
  pager_.reset();  // before the store that it reads
}

TEST_F(PagerTest, EndsWithoutHavingBroughtAnything) {
  start_serving();
  pager_.reset();
}

TEST_F(PagerTest, TheWorkingSetComesFirst) {
  std::vector<uint64_t> set = {3000, 6, 4494, 9, kPages + 5};
  start({.working_set = set, .record_ms = kNeverAhead});
  while (pager_->counters().background < 4) std::this_thread::yield();
  set.pop_back();  // no such page
  for (uint64_t number : set) expect_page(number);
}

TEST_F(PagerTest, WhatWasTouchedIsRecordedInOrder) {
  std::promise<std::vector<uint64_t>> recorded;
  start({.record_ms = kNeverAhead,
         .record_quiet_ms = 500,
         .on_recorded = [&](const std::vector<uint64_t>& pages) { recorded.set_value(pages); }});
  // Those of the first faults at least; what comes later may come by itself.
  expect_page(4000);
  auto pages = recorded.get_future().get();
  ASSERT_FALSE(pages.empty());
  EXPECT_EQ(pages.front(), 4000u);
  EXPECT_TRUE(pager_->wait_complete());
}

// The old content must not come back, whether the page had been there or not.
TEST_F(PagerTest, APageGivenBackStaysZero) {
  start({.working_set = {6}, .record_ms = 300});
  while (pager_->counters().background < 1) std::this_thread::yield();
  for (uint64_t number : {6, 3000}) {
    ASSERT_NE(store_.ram(id_, number), std::string(kPageBytes, '\0'));
    ASSERT_TRUE(memory_->discard(memory_->gpa_of(number), kPageBytes));
  }
  EXPECT_EQ(page(6), std::string(kPageBytes, '\0'));
  ASSERT_TRUE(pager_->wait_complete());
  pager_.reset();
  EXPECT_EQ(page(6), std::string(kPageBytes, '\0'));
  EXPECT_EQ(page(3000), std::string(kPageBytes, '\0'));
  expect_page(9);
}

TEST_F(PagerTest, ADamagedPageThatIsBroughtNowIsAnErrorOfWhoNeedsIt) {
  damage_packs();
  start_serving();
  std::optional<uint64_t> damaged;
  for (uint64_t number = 0; number < kPages && !damaged; ++number) {
    if (!pager_->bring_now(number)) damaged = number;
  }
  ASSERT_TRUE(damaged);
  expect_page(*damaged < 500 ? kPages - 1 : 0);  // it goes on all the same
  EXPECT_FALSE(pager_->bring_now(*damaged));
}

TEST_F(PagerTest, ItServesOnAThreadThatDidSomethingElseBefore) {
  std::atomic<bool> go_on = false;
  std::thread::id before;
  std::optional<base::Aside> aside("aside");
  aside->post([&] {
    before = std::this_thread::get_id();
    go_on.wait(false);
  });
  start_serving(&*aside);
  aside.reset();  // it is the pager's by now, and still at work
  go_on = true;
  go_on.notify_one();
  for (uint64_t number : {6, 3000}) expect_page(number);
  EXPECT_NE(before, std::thread::id());
  EXPECT_EQ(pager_->counters().faults, 2u);
}

TEST_F(PagerTest, WhatIsTouchedBeforeItBeginsWaits) {
  auto pager = Pager::create(*memory_, store_.load(id_), [](const base::Error&) {});
  ASSERT_TRUE(pager) << pager.error().text();
  pager_ = std::move(*pager);
  ASSERT_TRUE(pager_->bring_now(14));  // which needs nobody
  expect_page(14);
  auto touch = std::async(std::launch::async, [&] { expect_page(3000); });
  EXPECT_EQ(touch.wait_for(std::chrono::milliseconds(50)), std::future_status::timeout);
  ASSERT_TRUE(pager_->begin());
  touch.get();
}

TEST_F(PagerTest, ItEndsWhereItsThreadNeverCameToServe) {
  std::atomic<bool> go_on = false;
  base::Aside aside("aside");
  aside.post([&] { go_on.wait(false); });
  start_serving(&aside);
  std::jthread later([&] {
    go_on = true;
    go_on.notify_one();
  });
  pager_.reset();
}

TEST_F(PagerTest, DamageIsToldAndNeverSeen) {
  damage_packs();
  std::promise<std::string> told;
  on_damage_ = [&](const base::Error& error) { told.set_value(error.text()); };
  start();
  EXPECT_FALSE(pager_->wait_complete());
  std::string text = told.get_future().get();
  EXPECT_NE(text.find("packs/"), std::string::npos) << text;
}

TEST_F(PagerTest, DamageThatNobodyNeedsAnyMoreIsNotTold) {
  damage_packs();
  test::Gate gate("pager-ahead");
  auto store = *Store::open(test::gate_reads(*open_storage(store_.path()), gate));
  pager_ = std::move(*Pager::create(*memory_, *store->load(id_), on_damage_));  // which aborts
  ASSERT_TRUE(pager_->begin());
  ASSERT_TRUE(pager_->bring_ahead());
  EXPECT_TRUE(gate.wait_for_thread());
  auto ended = std::async(std::launch::async, [&] { pager_->end_ahead(); });
  EXPECT_FALSE(pager_->wait_complete());
  gate.open();
  ended.get();
  expect_page(kPages - 1);  // who waits is served all the same
  pager_.reset();           // before the store that it reads
}

TEST_F(PagerTest, WhoBringsADamagedPageIsTold) {
  damage_packs();
  start_serving();
  size_t damaged = 0;
  for (uint64_t number = 0; number < kPages; ++number) {
    auto brought = pager_->bring_now(number);
    if (brought) continue;
    ++damaged;
    EXPECT_NE(brought.error().text().find("packs/"), std::string::npos) << brought.error().text();
  }
  EXPECT_EQ(damaged, 1u) << "in the older pack it is a page that was written again";
}

}  // namespace
}  // namespace snapshot
