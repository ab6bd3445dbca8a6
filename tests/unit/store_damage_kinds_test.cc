// Damage to each kind of file a store has (that of FORMAT.md's worked example, disks and a machine
// that was killed included): whoever reads it gets what was written, or an error that names the
// file; verify names it too.
#include <gmock/gmock.h>

#include <map>
#include <tuple>

#include "snapshot/disk/layer.h"
#include "snapshot/space_reader.h"
#include "snapshot/store/store.h"
#include "tests/support/example_store.h"

namespace snapshot {
namespace {

using test::Contents;
using test::DiskImage;
using ::testing::HasSubstr;
using Page = std::array<std::byte, kPageBytes>;

constexpr uint64_t kDiskBlocks = 4;

class DamageKindsTest : public ::testing::Test {
 protected:
  DamageKindsTest() {
    test::ModelFileSystem files;
    test::make_example_store(files);
    image_ = files.image();
    auto store = Store::open(files.storage()).value();
    for (const char* folder : {"snap", "runs", "packs", "layers"}) {
      const auto listed = store->storage().list(folder).value();
      for (const std::string& name : listed) names_.push_back(folder + ("/" + name));
    }
    branch_ = store->heads().value().at(0).branch;
    names_.push_back(head_name(branch_));
    names_.push_back(kFormatName);
    running_ = layer_name(0, store->heads().value()[0].head->layers.at(0).id);
    const auto infos = store->list().value();
    for (const SnapshotInfo& info : infos) ids_.push_back(info.id);
    expected_ = read(*store);
    records_ = log_records(*store).value();
    EXPECT_EQ(ids_.size(), 2u);
    EXPECT_EQ(records_, 2u);
    EXPECT_EQ(names_.size(), 12u);
  }

  // By snapshot, space and page: content, or the error.
  using Pages = std::map<std::tuple<Id, Space, uint64_t>, base::Result<Page>>;
  Pages read(const Store& store) const {
    Pages pages;
    for (const Id& id : ids_) {
      auto snapshot = store.load(id);
      for (const Space space : {kRamSpace, disk_space(0)}) {
        for (uint64_t page = 0; page < kDiskBlocks; ++page) {
          base::Result<Page> content;
          base::Result<void> done = snapshot
                                        ? (*snapshot)->read_page(space, page, *content)
                                        : base::Result<void>(std::unexpected(snapshot.error()));
          if (!done) content = std::unexpected(done.error());
          pages.emplace(std::tuple(id, space, page), std::move(content));
        }
      }
      if (snapshot) (void)(*snapshot)->sections();
    }
    return pages;
  }

  // How many blocks the layer that no snapshot has is said to hold.
  base::Result<size_t> log_records(const Store& store) const {
    auto open = [&](const std::string& name) {
      return store.storage().open(name, Storage::Access::kRead, Storage::Caching::kCached);
    };
    TRY_ASSIGN(const Head head, read_head(store.storage(), store.format(), branch_));
    const Id& id = head.layers.at(0).id;
    TRY_ASSIGN(auto data, open(layer_name(0, id)));
    TRY_ASSIGN(auto log, open(layer_log_name(0, id)));
    TRY_ASSIGN(const auto map, recover_layer(store.format(), id, kDiskBlocks, *data, *log));
    size_t count = 0;
    map.for_each([&](uint64_t, PresenceMap::Block) { ++count; });
    return count;
  }

  // Is the damage, which is in `name`, named by somebody? What is read nevertheless is right.
  bool named(const DiskImage& image, const std::string& name, const std::string& what) {
    test::ModelFileSystem files(image);
    auto store = Store::open(files.storage());
    if (!store) {
      EXPECT_EQ(name, kFormatName) << what << ": " << store.error().text();
      EXPECT_THAT(store.error().text(), HasSubstr("FORMAT")) << what;
      return true;
    }
    for (const auto& [where, content] : read(**store)) {
      const auto& expected = expected_.at(where);
      if (content) {
        EXPECT_TRUE(expected && *content == *expected) << what;
      } else if (expected || content.error().text() != expected.error().text()) {
        EXPECT_THAT(content.error().text(), HasSubstr(name)) << what;
      }
    }
    auto report = (*store)->verify({}, {});
    EXPECT_TRUE(report) << what;
    bool found = false;
    for (const Damage& damage : report->damages) {
      EXPECT_EQ(damage.file, name) << what << ": " << damage.what;
      found |= damage.file == name;
    }
    const auto heads = (*store)->heads().value();
    for (const HeadInfo& head : heads) {
      if (head.damage.empty()) continue;
      EXPECT_THAT(head.damage, HasSubstr(name)) << what;
      found = true;
    }
    return found;
  }
  // Files of a layer that no snapshot has: verify does not know them.
  bool running(const std::string& name) const { return name.starts_with(running_); }

  DiskImage image_;
  std::vector<std::string> names_;
  std::vector<Id> ids_;
  Id branch_;
  std::string running_;
  Pages expected_;
  size_t records_ = 0;
};

Contents& contents(DiskImage& image, const std::string& name) {
  return image.nodes.at(*image.find(name)).contents;
}

DiskImage flipped(DiskImage image, const std::string& name, uint64_t at) {
  std::byte byte;
  contents(image, name).read(at, {&byte, 1});
  byte ^= std::byte{0x41};
  contents(image, name).write(at, {&byte, 1});
  return image;
}

TEST_F(DamageKindsTest, EachFlippedByteIsNamed) {
  for (const std::string& name : names_) {
    if (running(name)) continue;
    const uint64_t size = contents(image_, name).size();
    for (uint64_t at = 0; at < size; ++at) {
      // Headers, records and hashes whole; of data and of what fills blocks a sample.
      const bool data = at >= 4096 && !name.starts_with("runs");
      const bool filling = size > 4096 && at % 4096 > 128 && at % 4096 < 4088;
      if ((data || filling) && at % 61 != 0) continue;
      const std::string what = name + " at " + std::to_string(at);
      const bool hole = name.starts_with("layers") && at < 4096;  // of the committed layer
      EXPECT_EQ(named(flipped(image_, name, at), name, what), !hole) << what;
    }
  }
}

TEST_F(DamageKindsTest, EachLengthIsNamed) {
  for (const std::string& name : names_) {
    if (running(name)) continue;
    const uint64_t size = contents(image_, name).size();
    for (const uint64_t length : {uint64_t{0}, uint64_t{1}, uint64_t{7}, uint64_t{8}, uint64_t{16},
                                  uint64_t{63}, uint64_t{64}, uint64_t{4095}, uint64_t{4096},
                                  size / 2, size - 4096, size - 1, size + 1}) {
      // What is behind the last page of a pack or layer is nobody's.
      if (length == size || length > size + 1) continue;
      if (length > size && (name.starts_with("packs") || name.starts_with("layers"))) continue;
      DiskImage image = image_;
      contents(image, name).resize(length);
      const std::string what = name + " of " + std::to_string(length);
      EXPECT_TRUE(named(image, name, what)) << what;
    }
  }
}

TEST_F(DamageKindsTest, OtherFilesInItsPlaceAreNamed) {
  for (const std::string& name : names_) {
    for (const std::string& other : names_) {
      if (running(name) || other == name) continue;
      DiskImage image = image_;
      contents(image, name) = contents(image_, other);
      const std::string what = name + " is " + other;
      EXPECT_TRUE(named(image, name, what)) << what;
    }
  }
}

// What the guest flushed since the last snapshot: a log that is damaged ends there, which is less
// than was written and never anything else; or the error names the layer.
TEST_F(DamageKindsTest, ADamagedLogEndsWhereItIs) {
  const std::string log = running_ + ".log";
  const uint64_t size = contents(image_, log).size();
  EXPECT_EQ(size, kLayerLogHeaderBytes + records_ * kLayerLogRecordBytes);
  auto whole_records = [](uint64_t bytes) {
    return bytes < kLayerLogHeaderBytes ? 0 : (bytes - kLayerLogHeaderBytes) / kLayerLogRecordBytes;
  };
  for (uint64_t at = 0; at < size; ++at) {
    test::ModelFileSystem files(flipped(image_, log, at));
    auto store = Store::open(files.storage()).value();
    EXPECT_EQ(log_records(*store).value(), whole_records(at)) << at;
    DiskImage image = image_;
    contents(image, log).resize(at);
    test::ModelFileSystem cut(image);
    EXPECT_EQ(log_records(*Store::open(cut.storage()).value()).value(), whole_records(at)) << at;
  }
  for (const std::string& other : names_) {
    DiskImage image = image_;
    contents(image, log) = contents(image_, other);
    test::ModelFileSystem files(image);
    const auto found = log_records(*Store::open(files.storage()).value());
    EXPECT_EQ(found.value(), other == log ? records_ : 0u) << other;
  }
  for (const uint64_t length : {0, 4096, 12287}) {
    DiskImage image = image_;
    contents(image, running_).resize(length);
    test::ModelFileSystem files(image);
    const auto found = log_records(*Store::open(files.storage()).value());
    ASSERT_FALSE(found) << length;
    EXPECT_THAT(found.error().text(), HasSubstr(running_));
  }
}

}  // namespace
}  // namespace snapshot
