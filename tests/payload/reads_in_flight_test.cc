// Snapshots of a guest whose disk reads are in flight at the pause: memory is what it was at that
// instant, byte for byte, but for what those reads write to; and the restored guest gets them
// again, with the right content.
#include <fcntl.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <tuple>

#include "devices/virtio/file_disk.h"
#include "snapshot/disk/base_identity.h"
#include "tests/payload/keeping_disk.h"
#include "tests/payload/snapshot_guest.h"

namespace payload_test {
namespace {

using snapshot::kPageBytes;

template <typename T>
T value_of(base::Result<T> result) {
  if (!result) throw std::runtime_error(result.error().text());
  return std::move(*result);
}

constexpr uint64_t kDiskBytes = 16 << 20;
constexpr unsigned kDepth = 32, kKept = 12;

class ReadsInFlightTest : public SnapshotPayloadTest {
 protected:
  // A read's piece of memory: what it gets from the disk, where and how much.
  using Target = std::tuple<uint64_t, uint64_t, uint64_t>;
  struct Taken {
    snapshot::Id id;
    std::vector<std::byte> memory;
    size_t reads = 0;
    std::vector<Target> targets;
  };

  // The guest writes the disk, then reads all of it again and again and compares, until 'q'. Its
  // requests are not in whole pages or blocks: beside a read's target there is something else.
  void boot_reader() {
    std::ofstream(directory_.file("disk.img")).close();
    std::filesystem::resize_file(directory_.file("disk.img"), kDiskBytes);
    boot({.payload = "virtio",
          .command_line = "mode=blk ops=1000 qd=32 bytes=4608 buffers=64 passes=0 timeout=1000",
          .memory_bytes = 24 << 20});
    guest_->wait_for_output("virtio: blk slot");
    // So that what it reads is partly in the image and partly in layers.
    take();
    ASSERT_NE(guest_->wait_for_output("virtio: blk written=").find("written="), std::string::npos)
        << guest_->output();
  }

  Disks make_disks(const std::shared_ptr<const snapshot::Snapshot>& of) override {
    snapshot::LayeredDisk::Options with;
    const std::string path = directory_.file("disk.img");
    auto file = value_of(virtio::BlockFile::open({.path = path, .read_only = of != nullptr}));
    with.name = "disk0";
    with.base = value_of(virtio::FileDisk::create(std::move(file)));
    with.format = store_->format();
    with.queue = value_of(store_->storage().make_queue(256));
    std::unique_ptr<snapshot::LayeredDisk> layered;
    if (!of) {
      layered = value_of(snapshot::LayeredDisk::on_image(std::move(with)));
    } else {
      const std::string& recorded = of->manifest().disks.at(0).base;
      auto identity = value_of(snapshot::decode_base(std::as_bytes(std::span(recorded))));
      layered = value_of(snapshot::LayeredDisk::on_snapshot(
          std::move(with), snapshot::committed_blocks(of, snapshot::disk_space(0)), identity,
          value_of(branch_->create_layer(0))));
    }
    Disks disks;
    disks.layered.push_back(layered.get());
    disks.described.push_back(
        {.name = "disk0", .size = kDiskBytes, .read_only = false, .base = ""});
    auto keeping = std::make_unique<KeepingDisk>(std::move(layered));
    disk_ = keeping.get();
    disks.devices.emplace_back().id = "disk0";
    disks.devices.back().disk = std::move(keeping);
    return disks;
  }

  std::vector<Target> targets(const std::vector<KeepingDisk::Read>& reads) {
    const std::byte* memory = guest_->machine().memory().host(0);
    std::vector<Target> all;
    for (const KeepingDisk::Read& read : reads) {
      uint64_t offset = read.offset;
      for (const iovec& piece : read.memory) {
        all.emplace_back(offset, static_cast<std::byte*>(piece.iov_base) - memory, piece.iov_len);
        offset += piece.iov_len;
      }
    }
    std::ranges::sort(all);
    return all;
  }

  // A snapshot at whose pause reads are in flight, while others come and go until then.
  void take_with_reads(std::vector<Taken>& all) {
    ASSERT_TRUE(disk_->keep(kKept)) << guest_->output();
    std::vector<KeepingDisk::Read> reads;
    auto outcome = take({.in_pause = [&] { reads = disk_->reads_in_flight(); }});
    ASSERT_TRUE(disk_->let_go()) << guest_->output();
    EXPECT_GE(reads.size(), kKept);
    EXPECT_LE(reads.size(), kDepth) << "what is excepted is little";
    all.push_back({outcome.id, at_pause_, reads.size(), targets(reads)});
  }

  void expect_stored_but_for_reads(const Taken& taken) {
    std::vector<Extent> except;
    for (const auto& [offset, at, bytes] : taken.targets) except.push_back({at, bytes});
    expect_stored(taken.id, taken.memory, {.except = except});
  }

  // The reads that were in flight are the first that the restored disk hears of.
  void expect_issued_again(const Taken& taken) {
    EXPECT_EQ(targets(disk_->first_reads(taken.reads)), taken.targets);
  }

  KeepingDisk* disk_ = nullptr;  // of guest_
};

TEST_F(ReadsInFlightTest, OnlyTheirTargetsMayDiffer) {
  boot_reader();
  std::vector<Taken> taken;
  for (int i = 0; i < 6; ++i) ASSERT_NO_FATAL_FAILURE(take_with_reads(taken));
  EXPECT_EQ(guest_->output().find("FAIL"), std::string::npos) << guest_->output();
  for (const Taken& one : taken) ASSERT_NO_FATAL_FAILURE(expect_stored_but_for_reads(one));
}

TEST_F(ReadsInFlightTest, AreIssuedAgainAndBringTheRightContent) {
  boot_reader();
  std::vector<Taken> taken;
  for (int i = 0; i < 2; ++i) ASSERT_NO_FATAL_FAILURE(take_with_reads(taken));
  for (size_t generation = 1; generation < 4; ++generation) {
    const Taken from = taken.at(generation);
    restore_lazily(from.id, {});
    expect_issued_again(from);
    // And of the restored one, with reads of its own and pages that may still be on their way.
    ASSERT_NO_FATAL_FAILURE(take_with_reads(taken));
    ASSERT_NO_FATAL_FAILURE(expect_stored_but_for_reads(taken.back()));
    EXPECT_EQ(guest_->output().find("FAIL"), std::string::npos) << guest_->output();
  }
  // Whatever a read brings is compared by the guest with what was written there.
  for (const Taken& one : taken) {
    restore_lazily(one.id, {});
    expect_issued_again(one);
    guest_->type("q");
    const std::string output = guest_->wait_for_output(": done");
    EXPECT_NE(output.find("virtio: blk verified="), std::string::npos) << output;
    EXPECT_NE(output.find("virtio: done"), std::string::npos) << output;
  }
}

// The layer that was made for its pause is the next one's.
TEST_F(ReadsInFlightTest, SnapshotsThatFailLeaveOneLayerAtMost) {
  boot_reader();
  take();
  auto layers = [this] { return value_of(store_->storage().list("layers")).size(); };
  const size_t before = layers();
  for (int i = 0; i < 3; ++i) {
    progress_.cancel = true;  // met after the disks are prepared
    ASSERT_FALSE(capture_->take({}, progress_));
    EXPECT_LE(layers(), before + 2) << "data and log of one";
  }
  EXPECT_GT(layers(), before) << "nothing was prepared";
  progress_.cancel = false;
  EXPECT_FALSE(take().full);
}

}  // namespace
}  // namespace payload_test
