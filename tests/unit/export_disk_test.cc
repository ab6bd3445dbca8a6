#include "snapshot/export_disk.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "tests/support/small_store.h"

namespace snapshot {
namespace {

using snapshot_test::SmallStore;
using testing::HasSubstr;
constexpr auto kRefuse = OutputFile::Existing::kRefuse;

std::string content_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

struct ExportDisk : testing::Test {
  ExportDisk() {
    ids.push_back(store.take(Kind::kFull, {{1, 1}}, {{0, 1}, {5, 1}, {40, 1}}));
    ids.push_back(store.take(Kind::kIncremental, {}, {{5, 2}, {6, 0}, {7, 2}}));
    ids.push_back(store.take(Kind::kIncremental, {{1, 2}}));
  }
  SmallStore store;
  std::vector<Id> ids;
};

TEST_F(ExportDisk, IsTheDiskAtEachSnapshot) {
  for (size_t i = 0; i < ids.size(); ++i) {
    std::string path = store.file("disk" + std::to_string(i));
    auto exported = export_disk(*store.load(ids[i]), 0, store.base_path(), path, kRefuse, {});
    ASSERT_TRUE(exported) << exported.error().text();
    EXPECT_TRUE(content_of(path) == store.disk(ids[i])) << i;
  }
}

TEST_F(ExportDisk, NeedsTheBaseWhereBlocksAreInIt) {
  auto exported = export_disk(*store.load(ids[0]), 0, "", store.file("disk"), kRefuse, {});
  ASSERT_FALSE(exported);
  EXPECT_THAT(exported.error().text(), HasSubstr("--disk-base 0=PATH"));
  EXPECT_FALSE(std::filesystem::exists(store.file("disk")));
}

TEST_F(ExportDisk, ACopyOfTheBaseIsTheBase) {
  std::filesystem::copy_file(store.base_path(), store.file("copy"));
  ASSERT_TRUE(
      export_disk(*store.load(ids[1]), 0, store.file("copy"), store.file("disk"), kRefuse, {}));
  EXPECT_TRUE(content_of(store.file("disk")) == store.disk(ids[1]));
}

TEST_F(ExportDisk, AnotherBaseIsRefused) {
  std::ofstream(store.file("other"), std::ios::binary) << std::string(SmallStore::kDiskBytes, 'x');
  std::ofstream(store.file("short"), std::ios::binary) << std::string(4096, 'x');
  for (const char* name : {"other", "short"}) {
    auto exported =
        export_disk(*store.load(ids[0]), 0, store.file(name), store.file("disk"), kRefuse, {});
    ASSERT_FALSE(exported) << name;
    EXPECT_THAT(exported.error().text(), HasSubstr(store.file(name)));
    EXPECT_FALSE(std::filesystem::exists(store.file("disk")));
  }
}

TEST_F(ExportDisk, ADiskThatIsNotThereIsNamed) {
  auto exported =
      export_disk(*store.load(ids[0]), 3, store.base_path(), store.file("disk"), kRefuse, {});
  ASSERT_FALSE(exported);
  EXPECT_THAT(exported.error().text(), HasSubstr("has no disk 3: its disks are 0 to 0"));
}

// A machine that was killed: what its guest had flushed since the last snapshot is in its layers.
struct ExportDiskOfHead : ExportDisk {
  base::Result<void> export_it() {
    auto heads = store.store().heads();
    if (!heads) return std::unexpected(heads.error());
    EXPECT_EQ(heads->size(), 1u);
    return export_disk_of_head(store.store(), heads->at(0), 0, store.base_path(),
                               store.file("disk"), kRefuse, {});
  }
};

TEST_F(ExportDiskOfHead, HasWhatWasFlushedAfterTheLastSnapshot) {
  store.write_disk({{5, 7}, {7, 0}, {39, 7}, {40, 7}});
  store.write_disk({{39, 8}});
  store.stop_machine();
  auto exported = export_it();
  ASSERT_TRUE(exported) << exported.error().text();
  EXPECT_TRUE(content_of(store.file("disk")) == store.disk_now());
  EXPECT_FALSE(store.disk_now() == store.disk(ids[2]));
}

TEST_F(ExportDiskOfHead, AMachineThatRunsIsRefused) {
  store.write_disk({{5, 7}});
  auto exported = export_it();
  ASSERT_FALSE(exported);
  EXPECT_THAT(exported.error().text(), HasSubstr("take a snapshot and export that"));
  EXPECT_FALSE(std::filesystem::exists(store.file("disk")));
}

// Its first snapshot came to no end: from the pause on the disk's writes went to a layer.
struct ExportDiskOfNewHead : ::testing::Test {
  base::Result<void> export_it(uint32_t disk, const std::string& base) {
    auto heads = store.store().heads();
    if (!heads) return std::unexpected(heads.error());
    EXPECT_EQ(heads->size(), 1u);
    return export_disk_of_head(store.store(), heads->at(0), disk, base, store.file("disk"), kRefuse,
                               {});
  }
  void SetUp() override {
    store.write_disk({{5, 7}, {7, 0}, {40, 7}});
    store.stop_machine();
  }
  SmallStore store;
};

TEST_F(ExportDiskOfNewHead, StandsOnItsImage) {
  auto exported = export_it(0, store.base_path());
  ASSERT_TRUE(exported) << exported.error().text();
  EXPECT_TRUE(content_of(store.file("disk")) == store.disk_now());
}

TEST_F(ExportDiskOfNewHead, WhatItNeedsIsNamed) {
  auto exported = export_it(0, "");
  ASSERT_FALSE(exported);
  EXPECT_THAT(exported.error().text(), HasSubstr("--disk-base 0=PATH"));
  exported = export_it(1, store.base_path());
  ASSERT_FALSE(exported);
  EXPECT_THAT(exported.error().text(), HasSubstr("has nothing of a disk 1"));
  // Of another size.
  std::filesystem::resize_file(store.base_path(), 4096 * 4);
  exported = export_it(0, store.base_path());
  ASSERT_FALSE(exported);
  EXPECT_THAT(exported.error().text(), HasSubstr("is that of a disk of 41 blocks"));
  EXPECT_FALSE(std::filesystem::exists(store.file("disk")));
}

}  // namespace
}  // namespace snapshot
