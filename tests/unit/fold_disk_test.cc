#include "snapshot/fold_disk.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "devices/virtio/block_file.h"
#include "tests/support/small_store.h"

namespace snapshot {
namespace {

using snapshot_test::SmallStore;
using testing::HasSubstr;

std::string content_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

struct FoldDisk : testing::Test {
  FoldDisk() {
    ids.push_back(store.take(Kind::kFull, {}, {{0, 1}, {5, 1}}));
    ids.push_back(store.take(Kind::kIncremental, {}, {{5, 0}, {40, 2}, {9, 2}}));
  }
  base::Result<FoldReport> fold(const Id& id, const Progress& progress = {}) {
    return fold_disk(*store.load(id), store.store().format().uuid, 0, store.base_path(), progress);
  }
  std::string marker() const { return store.base_path() + ".folding"; }
  void damage_layers() {
    for (const auto& entry : std::filesystem::directory_iterator(store.file("store/layers"))) {
      std::string content = content_of(entry.path());
      for (size_t i = 0; i < content.size(); i += kPageBytes) content[i] = '#';
      std::ofstream(entry.path(), std::ios::binary) << content;
    }
  }
  SmallStore store;
  std::vector<Id> ids;
};

TEST_F(FoldDisk, TheImageIsTheDisk) {
  auto report = fold(ids[1]);
  ASSERT_TRUE(report) << report.error().text();
  EXPECT_EQ(report->written, 3u);
  EXPECT_EQ(report->zeroed, 1u);
  EXPECT_FALSE(report->resumed);
  EXPECT_TRUE(content_of(store.base_path()) == store.disk(ids[1]));
  EXPECT_FALSE(std::filesystem::exists(marker()));
}

TEST_F(FoldDisk, AChangedImageIsRefused) {
  std::ofstream(store.base_path(), std::ios::binary | std::ios::in | std::ios::out) << "changed";
  std::string before = content_of(store.base_path());
  EXPECT_FALSE(fold(ids[1]));
  EXPECT_TRUE(content_of(store.base_path()) == before);
}

TEST_F(FoldDisk, AnImageInUseIsRefused) {
  auto used = virtio::BlockFile::open({.path = store.base_path(), .read_only = true});
  ASSERT_TRUE(used);
  auto report = fold(ids[1]);
  ASSERT_FALSE(report);
  EXPECT_THAT(report.error().text(), HasSubstr("in use by another machine"));
  EXPECT_FALSE(std::filesystem::exists(marker()));
}

TEST_F(FoldDisk, DamageIsFoundBeforeTheImageIsTouched) {
  std::string before = content_of(store.base_path());
  damage_layers();
  auto report = fold(ids[1]);
  ASSERT_FALSE(report);
  EXPECT_THAT(report.error().text(), HasSubstr("layers/"));
  EXPECT_TRUE(content_of(store.base_path()) == before);
  EXPECT_FALSE(std::filesystem::exists(marker()));
}

TEST_F(FoldDisk, StoppedBeforeItWritesItChangesNothing) {
  std::string before = content_of(store.base_path());
  EXPECT_FALSE(fold(ids[1], [](uint64_t, uint64_t) { return false; }));
  EXPECT_TRUE(content_of(store.base_path()) == before);
  EXPECT_FALSE(std::filesystem::exists(marker()));
  // Later it is not stopped any more.
  EXPECT_TRUE(fold(ids[1], [](uint64_t done, uint64_t total) { return done <= total / 2; }));
  EXPECT_TRUE(content_of(store.base_path()) == store.disk(ids[1]));
}

// What a power cut leaves: the marker, and some blocks of the new content.
TEST_F(FoldDisk, AnInterruptedFoldIsCompleted) {
  std::ofstream(marker()) << "minivmm commit: store " << store.store().format().uuid.text()
                          << " snapshot " << ids[1].text() << " disk 0\n";
  std::ofstream(store.base_path(), std::ios::binary | std::ios::in | std::ios::out)
      << SmallStore::content(1, 0, 1).substr(0, 700);
  auto other = fold(ids[0]);
  ASSERT_FALSE(other);
  EXPECT_THAT(other.error().text(), HasSubstr("another commit into this image was interrupted"));
  auto report = fold(ids[1]);
  ASSERT_TRUE(report) << report.error().text();
  EXPECT_TRUE(report->resumed);
  EXPECT_TRUE(content_of(store.base_path()) == store.disk(ids[1]));
  EXPECT_FALSE(std::filesystem::exists(marker()));
}

// Also of zeros, where a file system had the size and not the data, and of another commit.
TEST_F(FoldDisk, AMarkerThatIsTornMeansThatNothingWasWritten) {
  for (const std::string& torn : {std::string("minivmm com"), std::string(104, '\0'),
                                  "minivmm commit: store 0123" + std::string(140, '\0')}) {
    SmallStore other;
    Id id = other.take(Kind::kFull, {}, {{0, 1}, {5, 1}});
    std::ofstream(other.base_path() + ".folding") << torn;
    auto report = fold_disk(*other.load(id), other.store().format().uuid, 0, other.base_path(), {});
    ASSERT_TRUE(report) << report.error().text();
    EXPECT_FALSE(report->resumed);
    EXPECT_TRUE(content_of(other.base_path()) == other.disk(id));
  }
}

TEST_F(FoldDisk, AFileThatIsNoMarkerIsLeftAlone) {
  std::ofstream(marker()) << "not ours";
  EXPECT_FALSE(fold(ids[1]));
  EXPECT_EQ(content_of(marker()), "not ours");
}

}  // namespace
}  // namespace snapshot
