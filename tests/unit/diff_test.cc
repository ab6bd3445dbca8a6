#include "snapshot/diff.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/small_store.h"

namespace snapshot {
namespace {

using snapshot_test::SmallStore;
using testing::ElementsAre;

TEST(DiffTest, NamesWhatDiffers) {
  SmallStore store;
  Id first = store.take(Kind::kFull, {{0, 1}, {1, 1}, {2, 1}, {100, 1}}, {{3, 1}});
  Id second = store.take(Kind::kIncremental, {{1, 2}, {2, 0}, {3, 2}, {4499, 2}}, {{3, 2}, {8, 2}});
  auto found = diff(*store.load(first), *store.load(second), {});
  ASSERT_TRUE(found) << found.error().text();
  ASSERT_EQ(found->size(), 2u);
  const SpaceDifference& ram = (*found)[0];
  EXPECT_EQ(ram.space, kRamSpace);
  EXPECT_EQ(ram.pages_before, SmallStore::kRamPages);
  EXPECT_EQ(ram.changed, 1u);
  EXPECT_EQ(ram.vanished, 1u);
  EXPECT_EQ(ram.appeared, 2u);
  EXPECT_EQ(ram.differing(), 4u);
  EXPECT_THAT(ram.ranges, ElementsAre(PageRange{1, 3}, PageRange{4499, 1}));
  const SpaceDifference& disk = (*found)[1];
  EXPECT_EQ(disk.space, disk_space(0));
  EXPECT_EQ(disk.changed, 2u);  // one of them was in the base image
  EXPECT_THAT(disk.ranges, ElementsAre(PageRange{3, 1}, PageRange{8, 1}));
}

TEST(DiffTest, TheWayBackIsItsMirror) {
  SmallStore store;
  Id first = store.take(Kind::kFull, {{0, 1}, {1, 1}});
  Id second = store.take(Kind::kIncremental, {{1, 0}, {5, 1}});
  auto back = diff(*store.load(second), *store.load(first), {});
  ASSERT_TRUE(back);
  EXPECT_EQ((*back)[0].appeared, 1u);
  EXPECT_EQ((*back)[0].vanished, 1u);
}

TEST(DiffTest, EqualContentIsEqualWhereverItIsStored) {
  SmallStore store;
  Id first = store.take(Kind::kFull, {{0, 1}, {1, 1}});
  Id there = store.take(Kind::kIncremental, {{0, 2}});
  Id back = store.take(Kind::kIncremental, {{0, 1}});
  Id full = store.take(Kind::kFull, {});
  EXPECT_EQ((*diff(*store.load(first), *store.load(there), {}))[0].differing(), 1u);
  for (const Id& other : {first, back, full}) {
    auto found = diff(*store.load(first), *store.load(other), {});
    ASSERT_TRUE(found);
    for (const auto& space : *found) EXPECT_EQ(space.differing(), 0u);
  }
}

TEST(DiffTest, CanBeStopped) {
  SmallStore store;
  Id id = store.take(Kind::kFull, {{0, 1}});
  EXPECT_FALSE(diff(*store.load(id), *store.load(id), [](uint64_t, uint64_t) { return false; }));
}

}  // namespace
}  // namespace snapshot
