// Snapshots of payload guests on the real KVM: what is stored is the memory at the instant of the
// pause, byte for byte, and so is what comes out of the store again.
#include <sched.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "tests/payload/snapshot_guest.h"
#include "vmm/base/urgency.h"

namespace payload_test {
namespace {

using snapshot::Capture;
using snapshot::kPageBytes;

TEST_F(SnapshotPayloadTest, StoredIsTheMemoryAtThePause) {
  boot("size=8M rate=20000 zero=20 order=random", 24 << 20);
  std::vector<std::pair<snapshot::Id, std::vector<std::byte>>> taken;
  for (int i = 0; i < 5; ++i) {
    auto outcome = take();
    EXPECT_EQ(outcome.full, i == 0);
    taken.emplace_back(outcome.id, at_pause_);
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  for (auto& [id, memory] : taken) expect_stored(id, memory);
}

// Writes reach the store's disk when the guest has run on and written the pages again.
TEST_F(SnapshotPayloadTest, AlsoWhereTheDiskIsLate) {
  for (uint64_t seed : {1, 2}) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    delay_writes(seed);
    boot("size=8M rate=50000 order=random zero=20 verify=1", 24 << 20);
    std::vector<std::pair<snapshot::Id, std::vector<std::byte>>> taken;
    for (int i = 0; i < 5; ++i) {
      auto outcome = take({.full = i == 3, .max_pause_ns = 5'000'000, .staging_bytes = 4 << 20});
      taken.emplace_back(outcome.id, at_pause_);
    }
    for (auto& [id, memory] : taken) expect_stored(id, memory);
    EXPECT_EQ(guest_->output().find("FAIL"), std::string::npos) << guest_->output();
    end_guest();
  }
}

TEST_F(SnapshotPayloadTest, AlsoOfAGuestThatWritesAsFastAsItCan) {
  boot("size=12M rate=0", 24 << 20);
  for (auto on_hot : {Capture::OnHot::kThrottle, Capture::OnHot::kStop}) {
    const bool stop = on_hot == Capture::OnHot::kStop;
    int hot = 0;
    // On a busy host the guest may not run enough to be too fast.
    for (int i = 0; i < 3 || (hot == 0 && i < 50); ++i) {
      // A pool far smaller than what is written. 16 pages fit into this budget, and no more than
      // 64 are copied in a pause that keeps to it.
      auto outcome = take({.max_pause_ns = 1000, .on_hot = on_hot, .staging_bytes = 4 << 20});
      if (stop ? outcome.residue > 64 : outcome.slices > 0) ++hot;
      EXPECT_TRUE(!stop || outcome.slices == 0);
      expect_stored(outcome.id, at_pause_);
    }
    EXPECT_GT(hot, 0) << (stop ? "it was never stopped" : "it was never throttled");
  }
}

// In the pause vCPUs and capture go before the host's other threads.
TEST_F(SnapshotPayloadTest, IsUrgentInThePauseOnly) {
  if (auto may = base::may_be_urgent(); !may) GTEST_SKIP() << may.error().text();
  boot({.payload = "dirty",
        .command_line = "size=8M rate=20000",
        .memory_bytes = 24 << 20,
        .cpus = 2});
  // Who holds goes before those he holds.
  const std::vector<int> urgent{2, 1, 1}, ordinary{0, 0, 0};
  auto priorities = [&] {
    auto priority_of = [](pid_t thread) {
      sched_param param{};
      ::sched_getparam(thread, &param);
      return param.sched_priority;
    };
    std::vector<int> found{priority_of(0)};
    for (const auto& vcpu : guest_->machine().vcpus()) {
      found.push_back(priority_of(vcpu->thread_id()));
    }
    return found;
  };
  std::vector<int> in_pause;
  Capture::Options options{.in_pause = [&] { in_pause = priorities(); }};
  auto outcome = capture_->take(options, progress_);
  ASSERT_TRUE(outcome) << outcome.error().text();
  EXPECT_EQ(in_pause, urgent);
  EXPECT_EQ(priorities(), ordinary);
  // Also where it fails, and where the guest stays held.
  options.in_pause = [&] { progress_.cancel = true; };
  ASSERT_FALSE(capture_->take(options, progress_));
  EXPECT_EQ(priorities(), ordinary);
  progress_.cancel = false;
  options = {.stop = true, .in_pause = [&] { in_pause = priorities(); }};
  in_pause.clear();
  outcome = capture_->take(options, progress_);
  ASSERT_TRUE(outcome) << outcome.error().text();
  EXPECT_EQ(in_pause, urgent);
  EXPECT_EQ(priorities(), ordinary);
  live_->release();
}

// Where vCPUs and capture have one processor, and somebody else has what a pause needs.
TEST_F(SnapshotPayloadTest, IsNoHindranceToOthersOfTheSameProcessor) {
  if (auto may = base::may_be_urgent(); !may) GTEST_SKIP() << may.error().text();
  cpu_set_t before, one;
  ASSERT_EQ(::sched_getaffinity(0, sizeof before, &before), 0);
  CPU_ZERO(&one);
  for (int cpu = 0; CPU_COUNT(&one) == 0; ++cpu) {
    if (CPU_ISSET(cpu, &before)) CPU_SET(cpu, &one);
  }
  ASSERT_EQ(::sched_setaffinity(0, sizeof one, &one), 0);  // threads made from here on as well
  boot({.payload = "dirty", .command_line = "size=8M rate=0", .memory_bytes = 24 << 20, .cpus = 2});
  std::atomic<bool> end = false;
  std::thread other([&] {
    while (!end) {
      guest_->machine().paused();  // takes the lock that a hold takes
    }
  });
  for (int i = 0; i < 5; ++i) expect_stored(take().id, at_pause_);
  end = true;
  other.join();
  ASSERT_EQ(::sched_setaffinity(0, sizeof before, &before), 0);
}

TEST_F(SnapshotPayloadTest, AlsoAbove4GiB) {
  boot("size=48M start=4G rate=20000", (uint64_t{3} << 30) + (uint64_t{1} << 30) + (64 << 20));
  guest_->wait_for_output("round=1");
  take();
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  auto second = take();
  EXPECT_GT(second.pages.data, 0u);
  uint64_t above = (uint64_t{3} << 30) / kPageBytes;
  expect_stored(second.id, at_pause_, {.first = above, .count = (48 << 20) / kPageBytes});
}

// What a failed snapshot had cleared from the log is in the next one.
TEST_F(SnapshotPayloadTest, AFailedOneLosesNothing) {
  boot("size=8M rate=50000", 24 << 20);
  take();
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  Capture::Options options;
  options.in_pause = [this] { progress_.cancel = true; };
  ASSERT_FALSE(capture_->take(options, progress_));
  progress_.cancel = false;
  auto outcome = take();
  expect_stored(outcome.id, at_pause_);
}

// The same of a guest that writes everything while it is copied: cancelled in the pause, and in
// rounds whose pages had left a pool far smaller than the guest.
TEST_F(SnapshotPayloadTest, AFailedOneLosesNothingOfAGuestAtFullSpeed) {
  boot("size=12M rate=0 verify=1 order=random", 24 << 20);
  take();
  for (auto on_hot : {Capture::OnHot::kThrottle, Capture::OnHot::kStop}) {
    for (uint64_t rounds : {0, 2}) {
      SCOPED_TRACE(rounds);
      Capture::Options options{.max_pause_ns = 50000, .on_hot = on_hot, .staging_bytes = 4 << 20};
      options.in_pause = [this] { progress_.cancel = true; };
      std::jthread canceller;
      if (rounds > 0) {
        progress_.round = 0;
        canceller = std::jthread([&](const std::stop_token& end) {
          while (progress_.round < rounds && !end.stop_requested()) std::this_thread::yield();
          progress_.cancel = true;
        });
      }
      ASSERT_FALSE(capture_->take(options, progress_));
      if (canceller.joinable()) {
        canceller.request_stop();
        canceller.join();
      }
      progress_.cancel = false;
      options.in_pause = {};
      auto outcome = take(options);
      EXPECT_FALSE(outcome.full);
      expect_stored(outcome.id, at_pause_);
    }
  }
  EXPECT_EQ(guest_->output().find("FAIL"), std::string::npos) << guest_->output();
}

// The vCPU waits for interrupts; random bytes come into its memory, and pages go to the balloon.
TEST_F(SnapshotPayloadTest, WhatDevicesWroteAndPagesGivenBack) {
  boot({.payload = "virtio", .command_line = "mode=rng ops=100000000 irq=1", .rng = true});
  guest_->wait_for_output("virtio: start");
  vmm::GuestMemory& memory = guest_->machine().memory();
  constexpr vmm::Gpa kContent{48 << 20};
  std::vector<std::byte> content(64 * kPageBytes, std::byte{0x5A});
  ASSERT_TRUE(memory.write(kContent, content));
  auto first = take();
  expect_stored(first.id, at_pause_);
  ASSERT_TRUE(memory.discard(kContent, content.size() / 2));
  auto second = take();
  EXPECT_GE(second.pages.zero, 32u);
  EXPECT_GE(second.pages.data, 1u) << "random bytes";
  expect_stored(second.id, at_pause_);
  EXPECT_EQ(at_pause_[kContent.value], std::byte{0});
  // Pages that nobody ever touched are in no snapshot.
  EXPECT_LT(first.pages.data, (8 << 20) / kPageBytes);
}

// A machine whose memory has not come yet: its next snapshot has what is still on its way.
TEST_F(SnapshotPayloadTest, WhileItIsRestoredLazily) {
  boot("size=16M rate=2000 order=random verify=1", 32 << 20);
  guest_->wait_for_output("round=1 ");
  auto parent = take();
  for (bool full : {false, true}) {
    SCOPED_TRACE(full ? "full" : "incremental");
    // Nothing comes unless somebody waits for it.
    restore_lazily(parent.id, {.record_ms = 3'600'000});
    const snapshot::Pager::Counters& counters = pager_->counters();
    while (counters.faults < 50) std::this_thread::yield();
    uint64_t there = 0;
    auto outcome =
        take({.full = full, .in_pause = [&] { there = counters.faults + counters.beside; }});
    EXPECT_LT(there, parent.pages.data) << "everything was there already";
    EXPECT_EQ(outcome.full, full);
    expect_stored(outcome.id, at_pause_);
    EXPECT_EQ(guest_->output().find("FAIL"), std::string::npos) << guest_->output();
  }
}

}  // namespace
}  // namespace payload_test
