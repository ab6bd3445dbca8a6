// Layered disks on a store: snapshots of a disk, restored by what the store says alone.
#include <gmock/gmock.h>

#include <random>

#include "snapshot/store/store.h"
#include "tests/support/layered_disk_fixture.h"

namespace snapshot {
namespace {

class LayeredDiskStoreTest : public test::LayeredDiskFixture {
 protected:
  static constexpr uint64_t kBytes = (1 << 20) + 512;
  static constexpr uint32_t kDisk = 2;

  LayeredDiskStoreTest() {
    store_ = std::move(*Store::create(system_.storage()));
    branch_ = std::move(*store_->create_branch(std::nullopt, "vm"));
    make_base(kBytes);
  }
  ~LayeredDiskStoreTest() override { disk_.reset(); }

  Disk::Options on_store(bool read_only) {
    Disk::Options made = options(read_only);
    made.format = store_->format();
    made.queue = std::move(*store_->storage().make_queue(64));
    return made;
  }
  base::Result<Id> snapshot(Kind kind) {
    TRY_ASSIGN(auto commit, begin(kind));
    TRY_ASSIGN(auto done, finish_commit(*commit));
    disk_->committed(committed_blocks(done, disk_space(kDisk)));
    return done->id();
  }
  base::Result<std::unique_ptr<Commit>> begin(Kind kind) {
    TRY_ASSIGN(LayerFiles next, branch_->create_layer(kDisk));
    TRY(disk_->prepare_freeze(std::move(next)));
    disk_->freeze();
    TRY(disk_->wait_frozen(std::chrono::seconds(10)));
    TRY_ASSIGN(auto commit, branch_->begin(kind));
    TRY(commit->set_pages(kRamSpace, 16, {}));
    TRY(disk_->add_to(*commit, kDisk));
    return commit;
  }
  base::Result<std::shared_ptr<const Snapshot>> finish_commit(Commit& commit) {
    SnapshotNotes notes;
    notes.memory.push_back({0, 16 * kPageBytes});
    auto identity = encode_base(*disk_->base_identity());
    for (uint32_t i = 0; i <= kDisk; ++i) {
      notes.disks.push_back({.name = "disk",
                             .size = kBytes,
                             .base = {reinterpret_cast<char*>(identity.data()), identity.size()}});
    }
    return commit.finish(base::SectionWriter(), notes);
  }
  void restore(const Id& id) {
    disk_.reset();
    branch_.reset();
    branch_ = std::move(*store_->create_branch(id, "again"));
    auto parent = std::move(*store_->load(id));
    const std::string& base = parent->manifest().disks.at(kDisk).base;
    auto identity = decode_base(std::as_bytes(std::span(base)));
    ASSERT_TRUE(identity);
    ASSERT_TRUE(check_base(*identity, image_.get(), kBytes, "base"));
    auto disk = Disk::on_snapshot(on_store(true), committed_blocks(parent, disk_space(kDisk)),
                                  *identity, std::move(*branch_->create_layer(kDisk)));
    ASSERT_TRUE(disk);
    disk_ = std::move(*disk);
  }
  void write_some(std::mt19937_64& random) {
    for (int i = 0; i < 8; ++i) {
      uint64_t sector = random() % (kBytes / 512), sectors = 1 + random() % 60;
      sectors = std::min(sectors, kBytes / 512 - sector);
      if (i == 4) {
        zero(Type::kWriteZeroes, sector * 512, sectors * 512);
      } else {
        write(sector * 512, content(sectors * 512, static_cast<unsigned>(random() % 1000)));
      }
    }
  }

  std::unique_ptr<Store> store_;
  std::unique_ptr<Branch> branch_;
};

// A failed sync of a layer is told once to each open file of it. Whoever hears of it first, the
// guest's flush or the commit, the other one must not succeed.
class LayeredDiskSyncTest : public LayeredDiskStoreTest {
 protected:
  // A snapshot is begun, a write lies in the frozen layer, and its next sync fails.
  void SetUp() override {
    disk_ = std::move(*Disk::on_image(on_store(false)));
    ASSERT_TRUE(snapshot(Kind::kFull));
    write(0, content(4096, 2));
    commit_ = std::move(*begin(Kind::kIncremental));
    system_.set_faults([this](const test::CallSite& site) -> std::optional<test::Fault> {
      if (site.call != test::Call::kSync || !site.name.starts_with("layers/")) return {};
      return failed_++ == 0 ? std::optional(test::Fault{.error = EIO, .drop_unsynced = true})
                            : std::nullopt;
    });
  }
  std::unique_ptr<Commit> commit_;
  unsigned failed_ = 0;
};

TEST_F(LayeredDiskSyncTest, WhereTheFlushHearsOfIt) {
  EXPECT_EQ(finish(start_flush()), EIO);
  EXPECT_FALSE(finish_commit(*commit_));
  EXPECT_GT(failed_, 0u);
}

TEST_F(LayeredDiskSyncTest, WhereTheCommitHearsOfIt) {
  EXPECT_FALSE(finish_commit(*commit_));
  EXPECT_EQ(finish(start_flush()), EIO);
  EXPECT_GT(failed_, 0u);
}

TEST_F(LayeredDiskStoreTest, EachOfManySnapshotsRestoresAndGoesOn) {
  disk_ = std::move(*Disk::on_image(on_store(false)));
  std::mt19937_64 random(3);
  std::vector<std::pair<Id, std::string>> taken;
  for (int i = 0; i < 20; ++i) {
    write_some(random);
    std::string then = expected_;
    auto id = snapshot(i == 0 ? Kind::kFull : Kind::kIncremental);
    ASSERT_TRUE(id) << id.error().text();
    taken.push_back({*id, then});
    ASSERT_TRUE(reads_as_expected()) << i;
    if (i % 7 == 6) {
      ASSERT_TRUE(branch_->merge_if_due());
    }
  }
  for (size_t i : {0u, 7u, 19u}) {
    auto [id, then] = taken[i];
    expected_ = then;
    restore(id);
    ASSERT_TRUE(reads_as_expected()) << i;
    write_some(random);
    then = expected_;
    auto next = snapshot(Kind::kIncremental);
    ASSERT_TRUE(next) << next.error().text();
    write_some(random);
    ASSERT_TRUE(reads_as_expected()) << i;
    expected_ = then;
    restore(*next);
    ASSERT_TRUE(reads_as_expected()) << i;
  }
  EXPECT_EQ(system_.misuse(), "");
}

}  // namespace
}  // namespace snapshot
