// Layered disks with many requests in flight: against a plain array of bytes, with freezes between
// them, and each snapshot restored with what was in flight issued again.
#include <gmock/gmock.h>

#include <atomic>
#include <mutex>
#include <random>
#include <thread>

#include "tests/support/layered_disk_fixture.h"

namespace snapshot {
namespace {

class LayeredDiskRaceTest : public test::LayeredDiskFixture,
                            public ::testing::WithParamInterface<uint64_t> {
 protected:
  static constexpr uint64_t kBytes = (1 << 20) + 2048;  // the last block is half one
  static constexpr uint64_t kSectors = kBytes / 512;

  // As a restored device issues it again.
  struct Listed {
    Type type;
    uint64_t offset;
    std::string data;
    std::vector<virtio::DiskRange> ranges;
  };
  struct Frozen {
    std::string expected;
    std::vector<Listed> in_flight;
  };

  uint64_t below(uint64_t limit) { return random_() % limit; }

  // Few places, so that many requests meet.
  virtio::DiskRange any_range() {
    uint64_t sectors = below(4) == 0 ? 1 + below(600) : 1 + below(20);
    uint64_t at = below(2) == 0 ? below(kSectors) : below(64);
    return {at * 512, std::min(sectors, kSectors - at) * 512, below(2) == 0};
  }
  void start_any() {
    virtio::DiskRange range = any_range();
    if (below(10) < 7) {
      std::string data = content(range.length, static_cast<unsigned>(below(1000)));
      start_write(range.offset, data);
      listed_.push_back({Type::kWrite, range.offset, data, {}});
      expected_.replace(range.offset, data.size(), data);
    } else {
      Type type = below(2) == 0 ? Type::kDiscard : Type::kWriteZeroes;
      std::vector<virtio::DiskRange> ranges{range};
      if (below(2) == 0) ranges.push_back(any_range());
      start_ranges(type, ranges);
      listed_.push_back({type, 0, "", ranges});
      for (const auto& zero : ranges) {
        expected_.replace(zero.offset, zero.length, zero.length, '\0');
      }
    }
    if (below(8) == 0) start_flush();
    if (below(4) == 0) start_read(range.offset, range.length);  // with writes: content unknown
    if (below(2) == 0) turn();
  }
  Frozen freeze_now() {
    freeze();
    Frozen frozen{expected_, {}};
    // Those that are done may be issued again too: the order stays.
    frozen.in_flight = listed_;
    return frozen;
  }
  void check_restored(const Frozen& frozen) {
    auto running = std::move(disk_);
    std::string now = std::exchange(expected_, frozen.expected);
    start_on_snapshot();
    for (const Listed& again : frozen.in_flight) {
      if (again.type == Type::kWrite) {
        start_write(again.offset, again.data);
      } else {
        start_ranges(again.type, again.ranges);
      }
    }
    wait_all();
    EXPECT_TRUE(reads_as_expected());
    disk_ = std::move(running);
    expected_ = now;
  }

  std::mt19937_64 random_{GetParam()};
  std::vector<Listed> listed_;
};

class LayeredDiskThreadsTest : public test::LayeredDiskFixture {
 protected:
  static constexpr uint64_t kBytes = 1 << 20;
};

INSTANTIATE_TEST_SUITE_P(Seeds, LayeredDiskRaceTest, ::testing::Range<uint64_t>(1, 13));

TEST_P(LayeredDiskRaceTest, ReadsWhatAPlainArrayHolds) {
  if (GetParam() % 2) system_.set_schedule(GetParam());
  system_.set_alignment(4096);
  flush_ = GetParam() % 3 != 0;
  make_base(kBytes);
  start_on_image();
  for (unsigned round = 0; round < 25; ++round) {
    std::optional<Frozen> frozen;
    uint64_t requests = 1 + below(30), at = below(requests);
    listed_.clear();
    for (uint64_t i = 0; i < requests; ++i) {
      start_any();
      if (i == at && below(3) != 0) {
        frozen = freeze_now();
        at = requests;
      }
    }
    wait_all();
    ASSERT_TRUE(reads_as_expected()) << round;
    if (!frozen || below(4) == 0) continue;  // a commit that failed
    commit();
    ASSERT_TRUE(reads_as_expected()) << round;
    check_restored(*frozen);
    if (HasFailure()) return;
  }
  EXPECT_EQ(system_.misuse(), "");
}

// The device on its thread, snapshots on another one, as in a machine: between two turns of the
// device for the freeze, beside it for all the rest.
TEST_F(LayeredDiskThreadsTest, SnapshotsAreTakenBesideARunningDevice) {
  make_base(kBytes);
  start_on_image();
  std::mutex device;  // what holds the event loop
  std::atomic<bool> stop = false;
  std::atomic<unsigned> rounds = 0;
  std::thread loop([&] {
    std::mt19937_64 random(11);
    while (!stop) {
      {
        std::lock_guard lock(device);
        for (int i = 0; i < 8; ++i) {
          uint64_t at = random() % (kBytes / 512 - 64) * 512;
          std::string data = content((1 + random() % 64) * 512, static_cast<unsigned>(random()));
          start_write(at, data);
          expected_.replace(at, data.size(), data);
        }
        start_flush();
        turn();
      }
      for (;;) {
        std::lock_guard lock(device);
        turn();
        if (std::ranges::all_of(jobs_, &Job::done)) break;
      }
      std::lock_guard lock(device);
      wait_all();
      ++rounds;
    }
  });
  std::vector<std::pair<std::shared_ptr<test::FakeCommitted>, std::string>> taken;
  for (int i = 0; i < 15; ++i) {
    for (unsigned before = rounds; rounds < before + 2;) std::this_thread::yield();
    prepare();
    bool idle = false;
    std::string then;
    {
      std::lock_guard lock(device);
      idle = disk_->in_flight() == 0;
      then = expected_;
      disk_->freeze();
    }
    commit();
    // Otherwise some of what is in it was in flight.
    if (idle) taken.push_back({committed_, then});
  }
  stop = true;
  loop.join();
  EXPECT_TRUE(reads_as_expected());
  for (auto& [committed, then] : taken) {
    committed_ = committed;
    expected_ = then;
    start_on_snapshot();
    EXPECT_TRUE(reads_as_expected());
  }
}

}  // namespace
}  // namespace snapshot
