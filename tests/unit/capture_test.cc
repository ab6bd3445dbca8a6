#include "snapshot/capture.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cstring>
#include <thread>

#include "tests/support/delayed_storage.h"
#include "tests/support/fake_live_guest.h"
#include "tests/support/temporary_directory.h"
#include "vmm/base/urgency.h"

namespace snapshot {
namespace {

using snapshot_test::FakeLiveGuest;

class CaptureTest : public testing::Test {
 protected:
  static constexpr uint64_t kPages = 5100;  // more than ever fit into a pause
  static constexpr uint64_t kSmallPool = Staging::kSmallestPool * kPageBytes;

  void SetUp() override {
    store_ = *Store::open_or_create(directory_.file("store"));
    begin(std::nullopt);
  }
  void begin(std::optional<Id> parent) {
    capture_.reset();
    branch_ = *store_->create_branch(parent, "vm");
    capture_.emplace(guest_, *store_, *branch_);
  }
  // As after a restore of `id`: nothing of its memory is there yet.
  void restore_lazily(const Id& id) {
    before_ = memory_of(id);
    guest_.take_memory_away();
    begin(id);
  }
  void arrive(uint64_t page) {
    guest_.arrive(page, std::span(before_).subspan(page * kPageBytes).first<kPageBytes>());
  }
  Capture::Outcome take(const Capture::Options& options = {}) {
    auto outcome = capture_->take(options, progress_);
    if (!outcome) throw std::runtime_error(outcome.error().text());
    return *outcome;
  }
  // The memory of a snapshot, read as somebody who opens the store anew reads it.
  std::vector<std::byte> memory_of(const Id& id) {
    auto store = *Store::open_or_create(directory_.file("store"));
    auto snapshot = *store->load(id);
    std::vector<std::byte> memory(kPages * kPageBytes);
    for (uint64_t page = 0; page < kPages; ++page) {
      auto read = snapshot->read_page(
          kRamSpace, page, std::span(memory).subspan(page * kPageBytes).first<kPageBytes>());
      if (!read) throw std::runtime_error(read.error().text());
    }
    return memory;
  }
  void expect_equal(const Id& id, const std::vector<std::byte>& memory) {
    EXPECT_TRUE(memory_of(id) == memory) << id.text();
  }

  // A guest that has written all its pages again whenever the log is looked at; where `until_held`,
  // until it was held once.
  void heat(bool until_held) {
    guest_.before_fetch_dirty = [this, until_held] {
      if (until_held && guest_.holds > 0) return;
      ++heated_;
      for (uint64_t page = 0; page < kPages; ++page) guest_.write(page, 3, heated_ + page);
    };
  }

  // While the guest writes, until it stops here.
  void expect_each_holds_its_pause(int count) {
    std::vector<std::pair<Id, std::vector<std::byte>>> taken;
    for (int i = 0; i < count; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
      auto outcome = take({.max_pause_ns = 50'000'000});
      taken.emplace_back(outcome.id, guest_.at_pause);
    }
    guest_.stop_writer();
    for (auto& [id, memory] : taken) expect_equal(id, memory);
  }

  test::TemporaryDirectory directory_;
  std::vector<std::byte> before_;
  FakeLiveGuest guest_{kPages};
  std::unique_ptr<Store> store_;
  std::unique_ptr<Branch> branch_;
  std::optional<Capture> capture_;
  Capture::Progress progress_;
  uint64_t heated_ = 0;
};

TEST_F(CaptureTest, TheFirstSnapshotIsFull) {
  for (uint64_t page = 0; page < kPages; page += 3) guest_.write(page, 1, page + 1);
  auto outcome = take();
  EXPECT_TRUE(outcome.full);
  EXPECT_EQ(outcome.pages.data, kPages / 3);
  expect_equal(outcome.id, guest_.memory());
}

TEST_F(CaptureTest, LaterOnesHoldOnlyWhatChanged) {
  for (uint64_t page = 0; page < kPages; ++page) guest_.write(page, 1, page + 1);
  auto first = take();
  auto before = guest_.memory();
  for (uint64_t page = 100; page < 140; ++page) guest_.write(page, 2, 5);
  guest_.write(200, 1, 201);  // the value it has
  guest_.fill(300, std::byte{0});
  auto second = take();
  EXPECT_FALSE(second.full);
  EXPECT_EQ(second.pages.data, 40u);
  EXPECT_EQ(second.pages.zero, 1u);
  expect_equal(second.id, guest_.memory());
  expect_equal(first.id, before);
}

TEST_F(CaptureTest, WhatItHoldsIsTheMemoryAtThePause) {
  guest_.start_writer(2000, 0, 1);
  expect_each_holds_its_pause(8);
}

// Writes that reach the disk while the guest has written the pages again.
TEST_F(CaptureTest, AlsoWhereTheDiskIsLate) {
  capture_.reset();
  branch_.reset();
  store_ = *Store::open(test::delay_writes(*open_storage(directory_.file("store")), {.seed = 7}));
  begin(std::nullopt);
  guest_.start_writer(2000, 0, 4);
  expect_each_holds_its_pause(5);
}

TEST_F(CaptureTest, AHotGuestIsHeldUntilItConverges) {
  guest_.start_writer(kPages, 0, 2);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  heat(true);
  // 1,024 pages of pool for 5,100 hot ones.
  auto outcome = take({.max_pause_ns = 100'000, .staging_bytes = kSmallPool});
  guest_.stop_writer();
  EXPECT_GT(outcome.rounds, 4u);
  EXPECT_GT(outcome.slices, 0u);
  EXPECT_EQ(outcome.slices, guest_.holds);
  EXPECT_GT(outcome.longest_hold_ns, 0u);
  EXPECT_GE(outcome.held_ns, outcome.longest_hold_ns);
  EXPECT_LE(outcome.held_ns, outcome.slices * outcome.longest_hold_ns);
  expect_equal(outcome.id, guest_.at_pause);
}

// Where throttling does not help, the disk being too slow for it.
TEST_F(CaptureTest, AHotGuestIsNotHeldForEver) {
  take();
  heat(false);
  auto outcome = take({.max_pause_ns = 1, .patience_ns = 50'000'000, .staging_bytes = kSmallPool});
  EXPECT_GT(outcome.slices, 0u);
  EXPECT_LT(outcome.rounds, 200u);
  EXPECT_EQ(outcome.residue, kPages);
  expect_equal(outcome.id, guest_.at_pause);
}

// What is copied while the guest is held once follows from the pause budget and from what a copy
// costs, within the limits of a piece of the log.
TEST_F(CaptureTest, AHotGuestIsHeldForNoMoreThanFitsIntoThePause) {
  take();
  heat(true);
  auto most_in_hold = [&](uint64_t max_pause_ns) {
    guest_.holds = 0;
    guest_.most_in_hold = 0;
    auto outcome = take({.max_pause_ns = max_pause_ns, .staging_bytes = kSmallPool});
    EXPECT_GT(outcome.slices, 0u);
    expect_equal(outcome.id, guest_.at_pause);
    return guest_.most_in_hold;
  };
  EXPECT_EQ(most_in_hold(1'000'000'000), 512u);
  EXPECT_EQ(most_in_hold(1), 16u);
  // Copies that take 10 us each: counted as 5 us, more is taken for a disturbance.
  guest_.before_page = [] {
    auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(10);
    while (std::chrono::steady_clock::now() < end) {
    }
  };
  const uint64_t slow = most_in_hold(1'000'000);
  EXPECT_GE(slow, 50u);   // a quarter of the budget is for copies whatever the rest takes
  EXPECT_LE(slow, 260u);  // and all of it where that takes nothing
}

TEST_F(CaptureTest, AHotGuestIsStoppedWhereThatIsWanted) {
  guest_.start_writer(kPages, 0, 3);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  heat(false);
  auto outcome =
      take({.max_pause_ns = 1, .on_hot = Capture::OnHot::kStop, .staging_bytes = kSmallPool});
  guest_.stop_writer();
  EXPECT_EQ(outcome.slices, 0u);
  EXPECT_EQ(guest_.holds, 0u);
  // Once, with all of it left, where this budget allows for 16 pages, and for 64 in the end.
  EXPECT_EQ(guest_.pauses, 1u);
  EXPECT_EQ(outcome.residue, kPages);
  expect_equal(outcome.id, guest_.at_pause);
}

// A pause that would be long is made short by a round more, as long as rounds leave less.
TEST_F(CaptureTest, AnotherRoundMakesAShorterPause) {
  take();
  auto residue_of = [&](uint64_t first, uint64_t later) {
    unsigned looks = 0;
    guest_.before_fetch_dirty = [&] {
      uint64_t count = looks++ == 0 ? first : later;
      for (uint64_t page = 0; page < count; ++page) guest_.write(page, 2, ++heated_);
    };
    auto outcome = take({.max_pause_ns = 1'000'000'000});
    expect_equal(outcome.id, guest_.at_pause);
    return std::pair(outcome.rounds, outcome.residue);
  };
  // 4,096 would fit into this pause, and a quarter of them is taken for short.
  EXPECT_EQ(residue_of(1024, 1), std::pair(uint64_t{0}, uint64_t{1024}));
  EXPECT_EQ(residue_of(1025, 1), std::pair(uint64_t{1}, uint64_t{1}));
  EXPECT_EQ(residue_of(4000, 2000), std::pair(uint64_t{2}, uint64_t{2000}));
  EXPECT_EQ(residue_of(4000, 4000), std::pair(uint64_t{1}, uint64_t{4000}));
}

// Looks that fit into a pause, and others that do not: a guest that could have been paused is not
// taken for one that writes too fast.
TEST_F(CaptureTest, RoundsForAShorterPauseDoNotMakeAGuestHot) {
  take();
  for (auto on_hot : {Capture::OnHot::kThrottle, Capture::OnHot::kStop}) {
    unsigned looks = 0;
    guest_.before_fetch_dirty = [&] {
      uint64_t count = looks++ % 2 == 0 ? 3000 : 4500;
      for (uint64_t page = 0; page < count; ++page) guest_.write(page, 2, ++heated_);
    };
    auto outcome = take({.max_pause_ns = 1'000'000'000, .on_hot = on_hot});
    EXPECT_EQ(outcome.rounds, 4u);
    EXPECT_EQ(outcome.residue, 3000u);
    EXPECT_EQ(outcome.slices, 0u);
    expect_equal(outcome.id, guest_.at_pause);
  }
}

// The host's other work waits while the guest does, and not for longer.
TEST_F(CaptureTest, AHeldGuestIsUrgent) {
  if (auto may = base::may_be_urgent(); !may) GTEST_SKIP() << may.error().text();
  take();
  heat(true);
  take({.max_pause_ns = 100'000, .staging_bytes = kSmallPool});
  EXPECT_GT(guest_.holds, 0u);
  EXPECT_EQ(guest_.urgent_holds, guest_.holds);
  EXPECT_EQ(guest_.urgent_pauses, guest_.pauses);
  // Not where it stands still for as long as the disk takes.
  guest_.pauses = guest_.urgent_pauses = 0;
  heat(false);
  take({.max_pause_ns = 1, .on_hot = Capture::OnHot::kStop, .staging_bytes = kSmallPool});
  EXPECT_EQ(guest_.pauses, 1u);
  EXPECT_EQ(guest_.urgent_pauses, 0u);
  EXPECT_FALSE(guest_.urgent_elsewhere);
}

TEST_F(CaptureTest, ACancelledOneLosesNothing) {
  for (uint64_t page = 0; page < kPages; ++page) guest_.write(page, 1, page + 1);
  take();
  for (uint64_t page = 0; page < 1000; ++page) guest_.write(page, 3, 9);
  guest_.device_write(2500, 17);
  progress_.cancel = true;
  auto cancelled = capture_->take({}, progress_);
  ASSERT_FALSE(cancelled);
  EXPECT_NE(cancelled.error().text().find("cancelled"), std::string::npos);
  EXPECT_EQ(store_->list()->size(), 1u);
  progress_.cancel = false;
  auto outcome = take();
  EXPECT_EQ(outcome.pages.data, 1001u);
  expect_equal(outcome.id, guest_.memory());
}

// Cancelled in the pause: everything was copied, every dirty bit was cleared.
TEST_F(CaptureTest, OneThatFailsAfterThePauseLosesNothing) {
  for (uint64_t page = 0; page < kPages; ++page) guest_.write(page, 1, page + 1);
  take();
  for (uint64_t page = 500; page < 1700; ++page) guest_.write(page, 3, 9);
  guest_.device_write(2500, 17);
  auto failed = capture_->take({.in_pause = [&] { progress_.cancel = true; }}, progress_);
  ASSERT_FALSE(failed);
  progress_.cancel = false;
  guest_.write(1, 1, 1);
  auto outcome = take();
  EXPECT_EQ(outcome.pages.data, 1202u);
  expect_equal(outcome.id, guest_.memory());
}

// What is compared with is the last snapshot that was committed, not the last one that was tried.
TEST_F(CaptureTest, APageThatIsAsItWasTwoSnapshotsAgo) {
  guest_.write(10, 0, 1);
  auto first = take();
  guest_.write(10, 0, 2);
  auto second = take();
  guest_.write(10, 0, 1);
  progress_.cancel = true;
  EXPECT_FALSE(capture_->take({}, progress_));
  progress_.cancel = false;
  auto third = take();
  EXPECT_EQ(third.pages.data, 1u);
  expect_equal(third.id, guest_.memory());
  EXPECT_EQ(memory_of(first.id), memory_of(third.id));
  EXPECT_NE(memory_of(second.id), memory_of(third.id));
}

TEST_F(CaptureTest, OnlyDevicesWrite) {
  take();
  guest_.device_write(77, 12345);
  auto outcome = take();
  EXPECT_EQ(outcome.pages.data, 1u);
  expect_equal(outcome.id, guest_.memory());
}

TEST_F(CaptureTest, AFullOneStandsForItself) {
  for (uint64_t page = 0; page < kPages; ++page) guest_.write(page, 1, page + 1);
  take();
  guest_.write(5, 5, 5);
  auto outcome = take({.full = true});
  EXPECT_TRUE(outcome.full);
  EXPECT_EQ(outcome.pages.data, kPages);
  expect_equal(outcome.id, guest_.memory());
}

// What did not arrive is in the next snapshot all the same, and memory is not asked for it.
TEST_F(CaptureTest, ASnapshotDuringALazyRestore) {
  for (uint64_t page = 0; page < kPages; page += 2) guest_.write(page, 1, page + 1);
  auto first = take();
  restore_lazily(first.id);
  auto expected = before_;
  for (uint64_t page : {0, 7, 1000}) {
    arrive(page);
    guest_.write(page, 2, 99);
    std::memcpy(expected.data() + page * kPageBytes, guest_.page(page), kPageBytes);
  }
  arrive(50);
  auto second = take();
  EXPECT_FALSE(second.full);
  EXPECT_EQ(second.pages.data, 3u);
  expect_equal(second.id, expected);
}

TEST_F(CaptureTest, AFullOneDuringALazyRestore) {
  for (uint64_t page = 0; page < kPages; page += 2) guest_.write(page, 1, page + 1);
  auto first = take();
  restore_lazily(first.id);
  auto expected = before_;
  arrive(1000);
  guest_.write(1000, 2, 99);
  std::memcpy(expected.data() + 1000 * kPageBytes, guest_.page(1000), kPageBytes);
  // The pager goes on while the snapshot begins.
  guest_.after_fetch_resident = [this] {
    for (uint64_t page = 200; page < 300; ++page) arrive(page);
  };
  auto second = take({.full = true});
  EXPECT_TRUE(second.full);
  EXPECT_EQ(second.pages.data, kPages / 2);
  expect_equal(second.id, expected);
}

}  // namespace
}  // namespace snapshot
