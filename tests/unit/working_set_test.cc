#include "snapshot/working_set.h"

#include <gtest/gtest.h>

#include "tests/support/temporary_directory.h"

namespace snapshot {
namespace {

class WorkingSetTest : public testing::Test {
 protected:
  void SetUp() override {
    storage_ = *open_storage(directory_.path());
    ASSERT_TRUE(storage_->make_directory("tmp"));
  }
  test::TemporaryDirectory directory_;
  std::unique_ptr<Storage> storage_;
  Id id_{1, 2};
};

TEST_F(WorkingSetTest, TheOrderIsKept) {
  ASSERT_TRUE(save_working_set(*storage_, id_, {9, 3, 7}));
  EXPECT_EQ(load_working_set(*storage_, id_, 10), (std::vector<uint64_t>{9, 3, 7}));
}

TEST_F(WorkingSetTest, ALaterOneReplacesIt) {
  ASSERT_TRUE(save_working_set(*storage_, id_, {9, 3, 7}));
  ASSERT_TRUE(save_working_set(*storage_, id_, {1}));
  EXPECT_EQ(load_working_set(*storage_, id_, 10), (std::vector<uint64_t>{1}));
  EXPECT_TRUE(storage_->list("tmp")->empty());
}

TEST_F(WorkingSetTest, PagesOutsideAndPagesTwiceAreLeftOut) {
  ASSERT_TRUE(save_working_set(*storage_, id_, {9, 3, 9, 10, 11}));
  EXPECT_EQ(load_working_set(*storage_, id_, 10), (std::vector<uint64_t>{9, 3}));
}

TEST_F(WorkingSetTest, ADamagedOneIsNotUsed) {
  EXPECT_TRUE(load_working_set(*storage_, id_, 10).empty());
  ASSERT_TRUE(save_working_set(*storage_, id_, {9, 3, 7}));
  auto file =
      *storage_->open("ws/" + id_.text(), Storage::Access::kWrite, Storage::Caching::kCached);
  uint64_t size = *file->size();
  for (uint64_t at = 0; at < size; ++at) {
    std::byte before;
    ASSERT_TRUE(file->read(at, {&before, 1}));
    std::byte flipped = before ^ std::byte{1};
    ASSERT_TRUE(file->write(at, {&flipped, 1}));
    EXPECT_TRUE(load_working_set(*storage_, id_, 10).empty()) << at;
    ASSERT_TRUE(file->write(at, {&before, 1}));
  }
  EXPECT_EQ(load_working_set(*storage_, id_, 10).size(), 3u);
}

}  // namespace
}  // namespace snapshot
