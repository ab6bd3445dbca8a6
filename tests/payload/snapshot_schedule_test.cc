// The schedule of a long run: snapshots that take longer than their interval.
#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "snapshot/service.h"
#include "tests/payload/snapshot_guest.h"

namespace payload_test {
namespace {

using namespace std::chrono_literals;
using snapshot::Capture;
using snapshot::SnapshotService;
using Clock = std::chrono::steady_clock;

// A whole interval follows the end of each, in which the guest runs.
TEST_F(SnapshotPayloadTest, OnesThatTakeLongerThanTheirIntervalAreNotStacked) {
  static constexpr auto kEvery = 20ms;
  boot("size=2M rate=1000", 16 << 20);
  capture_.reset();
  struct Taken {
    Clock::time_point begin, end;
  };
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<Taken> taken;

  SnapshotService::Config config;
  config.vm_name = "vm";
  config.every = kEvery;
  config.options.in_pause = [] { std::this_thread::sleep_for(2 * kEvery); };
  config.on_scheduled = [&](const base::Result<Capture::Outcome>& outcome) {
    const auto end = Clock::now();
    ASSERT_TRUE(outcome) << outcome.error().text();
    std::lock_guard lock(mutex);
    taken.push_back({end - std::chrono::nanoseconds(outcome->total_ns), end});
    changed.notify_all();
  };
  auto service = SnapshotService::create(std::move(config), std::move(live_), std::move(store_),
                                         std::move(branch_));
  ASSERT_TRUE(service) << service.error().text();
  ASSERT_TRUE((*service)->begin());
  {
    std::unique_lock lock(mutex);
    ASSERT_TRUE(changed.wait_for(lock, 60s, [&] { return taken.size() >= 5; }));
  }
  service->reset();
  for (size_t i = 0; i < taken.size(); ++i) {
    EXPECT_GT(taken[i].end - taken[i].begin, kEvery) << i;
    if (i > 0) {
      EXPECT_GE(taken[i].begin - taken[i - 1].end, kEvery) << i;
    }
  }
}

}  // namespace
}  // namespace payload_test
