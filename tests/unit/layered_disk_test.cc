#include "snapshot/disk/layered_disk.h"

#include <gmock/gmock.h>

#include <random>

#include "tests/support/layered_disk_fixture.h"

namespace snapshot {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

class LayeredDiskTest : public test::LayeredDiskFixture {};

constexpr uint64_t kBytes = 1 << 20;

TEST_F(LayeredDiskTest, TheImageItselfIsWrittenUntilTheFirstFreeze) {
  make_base(kBytes);
  start_on_image();
  write(4096, content(8192, 2));
  zero(Type::kWriteZeroes, 20480, 4096);
  EXPECT_TRUE(reads_as_expected());
  EXPECT_EQ(on_base(), expected_);
  EXPECT_FALSE(disk_->base_identity());

  freeze();
  std::string frozen = expected_;
  write(8192, content(4096, 3));
  zero(Type::kDiscard, 65536, 131072);
  EXPECT_EQ(on_base(), frozen);
  EXPECT_TRUE(reads_as_expected());
  commit();
  ASSERT_TRUE(disk_->base_identity());
  EXPECT_EQ(disk_->base_identity()->size, kBytes);
  EXPECT_TRUE(reads_as_expected());
  EXPECT_EQ(on_base(), frozen);
}

TEST_F(LayeredDiskTest, AnOldSnapshotIsWhatTheDiskHeldThen) {
  make_base(kBytes);
  start_on_image();
  write(0, content(4096, 2));
  freeze();
  commit();
  write(12288, content(4096, 3));
  zero(Type::kWriteZeroes, 131072, 65536);
  freeze();
  std::string then = expected_;
  write(12288, content(4096, 4));
  write(140000 / 512 * 512, content(512, 5));
  commit();
  EXPECT_TRUE(reads_as_expected());

  expected_ = then;
  start_on_snapshot();
  EXPECT_TRUE(reads_as_expected());
  write(512, content(1024, 6));
  EXPECT_TRUE(reads_as_expected());
}

TEST_F(LayeredDiskTest, PartsOfBlocksKeepTheRest) {
  make_base(kBytes + 1536);  // the last block is not whole
  start_on_image();
  freeze();
  write(512, content(512, 2));                   // inside one, over the image
  write(8192 - 512, content(1024, 3));           // over two
  write(16384 + 512, content(8192, 4));          // a whole one between two parts
  write(kBytes + 512, content(1024, 5));         // up to the end
  write(kBytes - 1024, content(2048 + 512, 6));  // over the end
  write(300 * 512, content(400 * 512, 7));       // more than a buffer
  EXPECT_TRUE(reads_as_expected());
  zero(Type::kWriteZeroes, 512, 512);
  zero(Type::kWriteZeroes, 8192 + 512, 65536);
  zero(Type::kDiscard, kBytes - 512, 2048);
  EXPECT_TRUE(reads_as_expected());
  commit();
  freeze();
  write(1024, content(512, 8));  // over what is committed
  zero(Type::kWriteZeroes, 20480, 4096);
  write(20480 + 512, content(512, 9));  // over what is zero
  write(kBytes, content(512, 10));
  EXPECT_TRUE(reads_as_expected());
  commit();
  EXPECT_TRUE(reads_as_expected());
  EXPECT_EQ(read(511 * 512, 1024), expected_.substr(511 * 512, 1024));
}

TEST_F(LayeredDiskTest, ZeroBlocksArePartOfTheSnapshotAndTakeNoSpace) {
  make_base(kBytes);
  start_on_image();
  freeze();
  write(0, content(262144, 2));
  zero(Type::kWriteZeroes, 4096, 131072);
  freeze();
  auto complete = disk_->wait_frozen(std::chrono::seconds(10));
  ASSERT_TRUE(complete && *complete);
  auto sealed = disk_->sealed();
  ASSERT_TRUE(sealed);
  ASSERT_EQ(sealed->layers.size(), 1u);
  ASSERT_EQ(sealed->entries.size(), 64u);
  for (uint64_t block = 0; block < 64; ++block) {
    const PageEntry& entry = sealed->entries[block];
    EXPECT_EQ(entry.page, block);
    bool zero = block >= 1 && block < 33;
    EXPECT_EQ(entry.slot, zero ? kSlotZero : 0u);
    EXPECT_EQ(entry.offset, zero ? 0 : block * kPageBytes);
    std::string bytes = expected_.substr(block * kPageBytes, kPageBytes);
    EXPECT_EQ(entry.hash, zero ? 0 : format_.hash(std::as_bytes(std::span(bytes))));
  }
}

TEST_F(LayeredDiskTest, AFailedCommitLeavesItsLayersToTheNext) {
  make_base(kBytes);
  start_on_image();
  freeze();
  write(0, content(16384, 2));
  freeze();  // and its commit fails
  write(4096, content(4096, 3));
  zero(Type::kWriteZeroes, 8192, 4096);
  disk_->commit_failed(base::Error("no space", ENOSPC));
  EXPECT_TRUE(reads_as_expected());
  freeze();
  std::string then = expected_;
  write(0, content(4096, 4));
  commit();
  EXPECT_TRUE(reads_as_expected());
  expected_ = then;
  start_on_snapshot();
  EXPECT_TRUE(reads_as_expected());
}

TEST_F(LayeredDiskTest, ADamagedBlockOfASnapshotIsAnErrorAndNotData) {
  make_base(kBytes);
  start_on_image();
  freeze();
  std::string name = layer_name(0, {1, layers_});
  write(0, content(16384, 2));
  freeze();
  commit();
  auto file = std::move(*storage_->open(name, Storage::Access::kWrite, Storage::Caching::kCached));
  std::byte wrong{0xEE};
  ASSERT_TRUE(file->write(5000, {&wrong, 1}));
  Job& job = start_read(0, 16384);
  EXPECT_EQ(finish(job), EIO);
  EXPECT_EQ(job.data.substr(4096, 4096), std::string(4096, '?'));
  EXPECT_EQ(read(0, 4096), expected_.substr(0, 4096));
  EXPECT_EQ(read(8192, 8192), expected_.substr(8192, 8192));
  // A part of it cannot be kept either; all of it can be written.
  EXPECT_EQ(finish(start_write(4096, content(512, 3))), EIO);
  write(4096, content(4096, 4));
  EXPECT_TRUE(reads_as_expected());
}

// Several machines' worth of chain, each snapshot compared when it is the newest, and again at the
// end.
TEST_F(LayeredDiskTest, RestoresOverAChainOfTwentySnapshots) {
  make_base(kBytes);
  start_on_image();
  std::mt19937_64 random(7);
  std::vector<std::pair<std::shared_ptr<test::FakeCommitted>, std::string>> chain;
  for (unsigned i = 0; i < 20; ++i) {
    for (unsigned writes = 0; writes < 10; ++writes) {
      uint64_t sector = random() % (kBytes / 512 - 40), sectors = 1 + random() % 40;
      write(sector * 512, content(sectors * 512, static_cast<unsigned>(random())));
    }
    zero(Type::kWriteZeroes, random() % (kBytes / 512 - 200) * 512, (1 + random() % 200) * 512);
    freeze();
    std::string then = expected_;
    write(random() % 200 * 4096, content(4096, i));
    commit();
    chain.push_back({committed_, then});
    EXPECT_TRUE(reads_as_expected()) << i;
  }
  for (auto& [committed, then] : chain) {
    committed_ = committed;
    expected_ = then;
    start_on_snapshot();
    EXPECT_TRUE(reads_as_expected());
  }
}

}  // namespace
}  // namespace snapshot
