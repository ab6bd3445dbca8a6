#include "snapshot/store/stale_head.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "snapshot/store/store.h"
#include "tests/support/store_machine.h"
#include "tests/support/temporary_directory.h"

namespace snapshot {
namespace {

// A machine with one disk. Its first snapshot seals layer 0, the next one layer 1, each with a
// block of its own; layer 2 is being written when it ends.
class StaleHeadTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto branch = store_->create_branch({}, "vm").value();
    branch_ = branch->id();
    LayerFiles layer = branch->create_layer(0).value();
    for (uint64_t i = 0; i < 2; ++i) {
      layers_.push_back(layer.id);
      LayerFiles next = branch->create_layer(0).value();
      auto buffer = std::make_unique<test::PageBuffer>();
      test::fill_page(buffer->bytes, i + 1);
      ASSERT_TRUE(layer.data->write(i * kPageBytes, buffer->bytes));
      auto commit = branch->begin(i == 0 ? Kind::kFull : Kind::kIncremental).value();
      const Slot slot = commit->add_layer(0, layer.id, *layer.data);
      ASSERT_TRUE(commit->set_pages(kRamSpace, 4, {}));
      ASSERT_TRUE(commit->set_pages(disk_space(0), 8,
                                    {{i, store_->hash(buffer->bytes), slot, i * kPageBytes}}));
      SnapshotNotes notes;
      notes.disks = {{"disk0", 8 * kPageBytes, false, "base identity"}};
      auto snapshot = commit->finish(base::SectionWriter(), notes);
      ASSERT_TRUE(snapshot) << snapshot.error().text();
      taken_.push_back((*snapshot)->id());
      layer = std::move(next);
    }
    layers_.push_back(layer.id);
  }
  // What the machine leaves where HEAD could not be replaced since `parent` was its last snapshot.
  void leave_head(std::optional<Id> parent, size_t first_layer) {
    Head head{.branch = branch_, .parent = parent, .vm_name = "vm", .layers = {}};
    for (size_t i = first_layer; i < layers_.size(); ++i) head.layers.push_back({0, layers_[i]});
    const auto bytes = encode_head(store_->format(), head);
    std::ofstream(directory_.file("store") + "/" + head_name(branch_), std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()),
               static_cast<std::streamsize>(bytes.size()));
  }
  void expect_on_the_last() {
    const Head head = store_->heads().value().at(0).head.value();
    EXPECT_EQ(head.parent, taken_[1]);
    EXPECT_EQ(head.layers, (std::vector<Head::Layer>{{0, layers_[2]}}));
  }

  test::TemporaryDirectory directory_;
  std::unique_ptr<Store> store_ = Store::open_or_create(directory_.file("store")).value();
  Id branch_;
  std::vector<Id> layers_, taken_;
};

TEST_F(StaleHeadTest, OneThatIsNotStaleIsWhatItSays) {
  expect_on_the_last();
  leave_head(taken_[1], 2);
  expect_on_the_last();
}

TEST_F(StaleHeadTest, MeansTheSnapshotThatSealedMost) {
  leave_head(taken_[0], 1);
  expect_on_the_last();
  leave_head({}, 0);
  expect_on_the_last();
}

TEST_F(StaleHeadTest, AlsoWhereThoseBetweenAreGone) {
  leave_head({}, 0);
  auto pruned = store_->prune({.keep = 1, .remove = {}, .keep_ids = {}});
  ASSERT_TRUE(pruned) << pruned.error().text();
  EXPECT_EQ(pruned->removed, std::vector<Id>{taken_[0]});
  expect_on_the_last();
  ASSERT_TRUE(store_->recover());
  expect_on_the_last();
}

// Without the snapshot that it is on nothing can be said for it: another one's content with layers
// that are not its own would be damage that looks whole.
TEST_F(StaleHeadTest, IsNotMovedToASnapshotThatSealedNoneOfItsLayers) {
  leave_head(taken_[1], 2);
  std::filesystem::remove(directory_.file("store") + "/" + snapshot_name(taken_[1]));
  expect_on_the_last();
}

// It may be the one that continues what is to go.
TEST_F(StaleHeadTest, NothingIsPrunedWhileOneCannotBeRead) {
  const std::string head = directory_.file("store") + "/" + head_name(branch_);
  std::filesystem::resize_file(head, std::filesystem::file_size(head) - 1);
  const PruneOptions options{.keep = {}, .remove = {taken_[1]}, .keep_ids = {}};
  const auto refused = store_->prune(options);
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().text().find("prune --head " + branch_.text()), std::string::npos)
      << refused.error().text();
  EXPECT_TRUE(store_->load(taken_[1]));
  ASSERT_TRUE(store_->remove_head(branch_));
  EXPECT_EQ(store_->prune(options).value().removed, std::vector{taken_[1]});
}

}  // namespace
}  // namespace snapshot
