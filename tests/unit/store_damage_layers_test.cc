// Layer files in each other's place: of another disk, of another snapshot, of another store. The
// restored disk, the store's reader and verify each name the file, and nobody gets what is not his.
#include <gmock/gmock.h>

#include <map>
#include <set>
#include <tuple>

#include "snapshot/store/store.h"
#include "tests/support/layered_disk_fixture.h"

namespace snapshot {
namespace {

using test::Contents;
using test::DiskImage;
using ::testing::HasSubstr;

constexpr uint64_t kBlocks = 6;
constexpr uint32_t kDisks = 2;

std::string page_of(const std::string& text) {
  std::string page;
  while (page.size() < kPageBytes) page += text + "; ";
  page.resize(kPageBytes);
  return page;
}

Contents& contents(DiskImage& image, const std::string& name) {
  return image.nodes.at(*image.find(name)).contents;
}

std::string block_in(DiskImage& image, const std::string& name, uint64_t block) {
  std::string page(kPageBytes, 0);
  contents(image, name).read(block * kPageBytes, std::as_writable_bytes(std::span(page)));
  return page;
}

// Two disks, two snapshots, and so four layers: the first ones hold all blocks, the second ones a
// few. Block 0 is the same on both disks and in every store.
struct Example {
  struct Block {
    std::string layer, content;
  };
  explicit Example(const std::string& tag) {
    test::ModelFileSystem files;
    auto store = Store::create(files.storage()).value();
    auto branch = store->create_branch({}, "vm").value();
    std::map<std::pair<uint32_t, uint64_t>, Block> now;
    for (const bool full : {true, false}) {
      auto commit = branch->begin(full ? Kind::kFull : Kind::kIncremental).value();
      EXPECT_TRUE(commit->set_pages(kRamSpace, 4, {}));
      std::vector<LayerFiles> open;
      for (uint32_t disk = 0; disk < kDisks; ++disk) {
        LayerFiles& layer = open.emplace_back(branch->create_layer(disk).value());
        const std::string name = layer_name(disk, layer.id);
        const Slot slot = commit->add_layer(disk, layer.id, *layer.data);
        std::vector<PageEntry> entries;
        for (const uint64_t block :
             full ? std::vector<uint64_t>{0, 1, 2, 3, 4, 5} : std::vector<uint64_t>{1, 2, 4}) {
          const std::string content =
              block == 0 ? page_of("the same")
                         : page_of(fmt::format("{} {} {} {}", tag, full, disk, block));
          const auto bytes = std::as_bytes(std::span(content));
          EXPECT_TRUE(layer.data->write(block * kPageBytes, bytes));
          entries.push_back({block, store->hash(bytes), slot, block * kPageBytes});
          now[{disk, block}] = {name, content};
        }
        EXPECT_TRUE(commit->set_pages(disk_space(disk), kBlocks, std::move(entries)));
        layers.push_back(name);
      }
      SnapshotNotes notes;
      notes.memory = {{0, 4 * kPageBytes}};
      for (uint32_t disk = 0; disk < kDisks; ++disk) {
        notes.disks.push_back({"disk", kBlocks * kPageBytes, false, ""});
      }
      const Id id = commit->finish(base::SectionWriter(), notes).value()->id();
      for (const auto& [where, block] : now) {
        blocks[{id, where.first, where.second}] = block;
        users[block.layer].insert(id);
      }
    }
    branch.reset();
    image = files.image();
  }

  DiskImage image;
  std::vector<std::string> layers;
  std::map<std::tuple<Id, uint32_t, uint64_t>, Block> blocks;
  std::map<std::string, std::set<Id>> users;
};

class LayerExchangeTest : public test::LayeredDiskFixture {
 protected:
  LayerExchangeTest() { make_base(kBlocks * kPageBytes); }
  ~LayerExchangeTest() override { disk_.reset(); }

  // The disk of the restored machine.
  void restore(Store& store, Branch& branch, const Id& id, uint32_t disk) {
    auto with = options(true);
    with.format = store.format();
    with.queue = store.storage().make_queue(64).value();
    disk_ = Disk::on_snapshot(std::move(with),
                              committed_blocks(store.load(id).value(), disk_space(disk)), {},
                              branch.create_layer(disk).value())
                .value();
  }

  // The content, or the error that was logged.
  base::Result<std::string> read_restored(uint64_t block) {
    testing::internal::CaptureStderr();
    Job& job = start_read(block * kPageBytes, kPageBytes);
    const int error = finish(job);
    const std::string said = testing::internal::GetCapturedStderr();
    if (error == 0) return job.data;
    EXPECT_EQ(error, EIO);
    return base::fail(said);
  }

  // Of example_, with other content in some of its layers.
  void expect_named(DiskImage image, const std::set<std::string>& changed,
                    const std::string& what) {
    SCOPED_TRACE(what);
    test::ModelFileSystem files(image);
    auto store = Store::open(files.storage()).value();
    const auto report = store->verify({}, {}).value();
    std::map<std::string, std::set<Id>> named;
    for (const Damage& damage : report.damages) {
      named[damage.file].insert(damage.snapshots.begin(), damage.snapshots.end());
    }
    std::map<std::string, std::set<Id>> expected;
    for (const std::string& name : changed) expected[name] = example_.users.at(name);
    EXPECT_EQ(named, expected);

    std::optional<std::pair<Id, uint32_t>> open;
    std::unique_ptr<Branch> branch;
    for (const auto& [where, block] : example_.blocks) {
      const auto& [id, disk, number] = where;
      if (open != std::pair(id, disk)) {
        disk_.reset();
        branch = store->create_branch(id, "restored").value();
        restore(*store, *branch, id, disk);
        open = {id, disk};
      }
      // A file that is too short is not read at all.
      const bool right =
          block_in(image, block.layer, number) == block.content &&
          contents(image, block.layer).size() >= contents(example_.image, block.layer).size();
      const auto restored = read_restored(number);
      std::array<std::byte, kPageBytes> page;
      const auto read = store->load(id).value()->read_page(disk_space(disk), number, page);
      EXPECT_EQ(restored.has_value(), right) << "block " << number << " of disk " << disk;
      EXPECT_EQ(read.has_value(), right) << "block " << number << " of disk " << disk;
      if (restored.has_value() != right || read.has_value() != right) continue;
      if (right) {
        EXPECT_EQ(*restored, block.content);
        EXPECT_EQ(std::memcmp(page.data(), block.content.data(), kPageBytes), 0);
      } else {
        EXPECT_THAT(restored.error().text(), HasSubstr(block.layer));
        EXPECT_THAT(read.error().text(), HasSubstr(block.layer));
      }
    }
    disk_.reset();
  }

  Example example_{"this"};
};

TEST_F(LayerExchangeTest, NothingIsNamedWhereNothingIsExchanged) {
  expect_named(example_.image, {}, "whole");
}

TEST_F(LayerExchangeTest, BetweenDisksAndSnapshotsOfAStore) {
  ASSERT_EQ(example_.layers.size(), 4u);
  for (size_t i = 0; i < example_.layers.size(); ++i) {
    for (size_t j = 0; j < i; ++j) {
      const std::string &one = example_.layers[i], &other = example_.layers[j];
      DiskImage image = example_.image;
      std::swap(contents(image, one), contents(image, other));
      expect_named(image, {one, other}, one + " and " + other);
    }
  }
}

TEST_F(LayerExchangeTest, BetweenStores) {
  Example foreign("foreign");
  for (const std::string& name : example_.layers) {
    for (const std::string& other : foreign.layers) {
      DiskImage image = example_.image;
      contents(image, name) = contents(foreign.image, other);
      expect_named(image, {name}, name + " is the other store's " + other);
    }
  }
  // All of them, each by the one that had its place there.
  DiskImage image = example_.image;
  for (size_t i = 0; i < example_.layers.size(); ++i) {
    contents(image, example_.layers[i]) = contents(foreign.image, foreign.layers[i]);
  }
  expect_named(image, {example_.layers.begin(), example_.layers.end()}, "all");
}

}  // namespace
}  // namespace snapshot
