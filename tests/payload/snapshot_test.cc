// Snapshots of payload guests on the real KVM: what is stored is the memory at the instant of the
// pause, byte for byte, and a guest restored from it goes on.
#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "snapshot/capture.h"
#include "snapshot/eager.h"
#include "snapshot/machine_guest.h"
#include "snapshot/pager.h"
#include "snapshot/store/store.h"
#include "tests/payload/guest.h"
#include "tests/support/temporary_directory.h"

namespace {

using payload_test::Guest;
using snapshot::Capture;
using snapshot::kPageBytes;
using snapshot::kRamSpace;

class SnapshotPayloadTest : public testing::Test {
 protected:
  void SetUp() override {
    if (auto why = payload_test::cannot_run()) GTEST_SKIP() << *why;
    store_ = *snapshot::Store::open_or_create(directory_.file("store"));
  }

  void boot(const std::string& command_line, uint64_t memory_bytes = 64 << 20) {
    auto guest = Guest::create(
        {.payload = "dirty", .command_line = command_line, .memory_bytes = memory_bytes});
    ASSERT_TRUE(guest) << guest.error().text();
    attach(std::move(*guest), std::nullopt);
    guest_->machine().run();
  }
  void attach(std::unique_ptr<Guest> guest, std::optional<snapshot::Id> parent) {
    guest_ = std::move(guest);
    branch_ = *store_->create_branch(parent, "vm");
    live_ = *snapshot::MachineGuest::create(guest_->machine(), guest_->platform(), {}, {});
    capture_.emplace(*live_, *store_, *branch_);
  }
  void end_guest() {
    capture_.reset();
    live_.reset();
    branch_.reset();
    guest_.reset();
  }

  // Takes a snapshot and keeps what memory was at its instant.
  Capture::Outcome take(Capture::Options options = {}) {
    options.in_pause = [this] { at_pause_ = memory_of(guest_->machine().memory()); };
    auto outcome = capture_->take(options, progress_);
    if (!outcome) throw std::runtime_error(outcome.error().text());
    return *outcome;
  }
  static std::vector<std::byte> memory_of(vmm::GuestMemory& memory) {
    std::vector<std::byte> bytes;
    for (const auto& region : memory.regions()) {
      bytes.insert(bytes.end(), region.host, region.host + region.size);
    }
    return bytes;
  }
  // By the store's reader, and by what an eager restore fills memory with.
  void expect_stored(const snapshot::Id& id, const std::vector<std::byte>& memory) {
    auto snapshot = *store_->load(id);
    std::array<std::byte, kPageBytes> page;
    for (uint64_t i = 0; i < memory.size() / kPageBytes; ++i) {
      auto read = snapshot->read_page(kRamSpace, i, page);
      ASSERT_TRUE(read) << read.error().text();
      ASSERT_EQ(std::memcmp(page.data(), memory.data() + i * kPageBytes, kPageBytes), 0)
          << "page " << i;
    }
    auto fresh = *vmm::GuestMemory::create(memory.size());
    auto filled = snapshot::fill_memory(*fresh, *store_, *snapshot);
    ASSERT_TRUE(filled) << filled.error().text();
    ASSERT_TRUE(memory_of(*fresh) == memory);
  }

  test::TemporaryDirectory directory_;
  std::unique_ptr<snapshot::Store> store_;
  std::unique_ptr<Guest> guest_;
  std::unique_ptr<snapshot::Branch> branch_;
  std::unique_ptr<snapshot::MachineGuest> live_;
  std::optional<Capture> capture_;
  Capture::Progress progress_;
  std::vector<std::byte> at_pause_;
};

TEST_F(SnapshotPayloadTest, StoredIsTheMemoryAtThePause) {
  boot("size=32M rate=20000 zero=20 order=random");
  std::vector<std::pair<snapshot::Id, std::vector<std::byte>>> taken;
  for (int i = 0; i < 6; ++i) {
    auto outcome = take();
    EXPECT_EQ(outcome.full, i == 0);
    taken.emplace_back(outcome.id, at_pause_);
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  for (auto& [id, memory] : taken) expect_stored(id, memory);
}

TEST_F(SnapshotPayloadTest, AlsoOfAGuestThatWritesAsFastAsItCan) {
  boot("size=32M rate=0");
  for (auto on_hot : {Capture::OnHot::kThrottle, Capture::OnHot::kStop}) {
    for (int i = 0; i < 3; ++i) {
      // A pool far smaller than what is written.
      auto outcome = take({.on_hot = on_hot, .staging_bytes = 4 << 20});
      expect_stored(outcome.id, at_pause_);
    }
  }
}

TEST_F(SnapshotPayloadTest, AlsoAbove4GiB) {
  boot("size=48M start=4G rate=20000", (uint64_t{3} << 30) + (uint64_t{1} << 30) + (64 << 20));
  guest_->wait_for_output("round=1");
  take();
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  auto second = take();
  EXPECT_GT(second.pages.data, 0u);
  auto snapshot = *store_->load(second.id);
  uint64_t above = (uint64_t{3} << 30) / kPageBytes;
  std::array<std::byte, kPageBytes> page;
  for (uint64_t i = above; i < above + (48 << 20) / kPageBytes; ++i) {
    ASSERT_TRUE(snapshot->read_page(kRamSpace, i, page));
    ASSERT_EQ(std::memcmp(page.data(), at_pause_.data() + i * kPageBytes, kPageBytes), 0) << i;
  }
}

// What a failed snapshot had cleared from the log is in the next one.
TEST_F(SnapshotPayloadTest, AFailedOneLosesNothing) {
  boot("size=32M rate=50000");
  take();
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  Capture::Options options;
  options.in_pause = [this] { progress_.cancel = true; };
  ASSERT_FALSE(capture_->take(options, progress_));
  progress_.cancel = false;
  auto outcome = take();
  expect_stored(outcome.id, at_pause_);
}

}  // namespace
