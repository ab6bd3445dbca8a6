// A store that is damaged, or comes from elsewhere: the damage is named, or what is read is what
// was written; nothing else ever.
#include <gmock/gmock.h>

#include <vector>

#include "snapshot/store/store.h"
#include "tests/support/model_storage.h"
#include "tests/support/store_machine.h"

namespace snapshot {
namespace {

using test::Contents;
using test::DiskImage;
using ::testing::HasSubstr;

constexpr uint64_t kPages = 40;

Contents& contents(DiskImage& image, const std::string& name) {
  return image.nodes.at(*image.find(name)).contents;
}

// Three snapshots and a merge; a new store each time.
struct SmallStore {
  SmallStore() {
    test::ModelFileSystem files;
    auto store = Store::create(files.storage()).value();
    test::StoreMachine machine(*store, kPages);
    for (uint64_t page = 0; page < 4; ++page) machine.write(page, page + 1);
    EXPECT_TRUE(machine.commit(Kind::kFull));
    EXPECT_TRUE(machine.branch().create_layer(0));  // so that it has a HEAD
    machine.write(1, 0);
    machine.write(30, 5);
    EXPECT_TRUE(machine.commit(Kind::kIncremental));
    EXPECT_TRUE(machine.branch().merge_if_due());
    machine.write(31, 6);
    EXPECT_TRUE(machine.commit(Kind::kIncremental));
    history = machine.history();
    image = files.image();
    for (const std::string& folder : std::vector<std::string>{"snap", "runs", "packs", "heads"}) {
      const auto listed = store->storage().list(folder).value();
      for (const std::string& name : listed) {
        if (!name.ends_with(kBranchLockSuffix)) names.push_back(folder + "/" + name);
      }
    }
    names.push_back("FORMAT");
  }

  std::map<Id, test::Content> history;
  DiskImage image;
  std::vector<std::string> names;
};

class StoreDamageTest : public ::testing::Test {
 protected:
  // What a reader gets of the image is right or an error. True: verify found damage, or the store
  // could not even be opened.
  bool damage_is_found(const DiskImage& image, const std::string& what) {
    test::ModelFileSystem files(image);
    auto store = Store::open(files.storage());
    if (!store) return true;
    const auto infos = (*store)->list();
    EXPECT_TRUE(infos) << what;
    for (const auto& [id, content] : history_) {
      auto snapshot = (*store)->load(id);
      if (!snapshot) {
        EXPECT_THAT(snapshot.error().text(), HasSubstr(id.text())) << what;
        continue;
      }
      (void)(*snapshot)->sections();
      test::Page expected, read;
      std::vector<PageEntry> entries(kPages);
      const bool ranged = (*snapshot)->find_range(kRamSpace, 0, entries).has_value();
      for (uint64_t page = 0; page < kPages; ++page) {
        if (!(*snapshot)->read_page(kRamSpace, page, read)) continue;
        const auto number = content.find(page);
        test::fill_page(expected, number == content.end() ? 0 : number->second);
        EXPECT_EQ(read, expected) << what << ", page " << page;
        if (ranged) {
          EXPECT_EQ(entries[page].hash, (*snapshot)->find(kRamSpace, page).value().hash) << what;
        }
      }
    }
    bool head_damaged = false;
    const auto heads = (*store)->heads().value();
    for (const HeadInfo& head : heads) head_damaged |= !head.damage.empty();
    const auto report = (*store)->verify({}, {});
    EXPECT_TRUE(report) << what;
    return head_damaged || !report->good();
  }

  const SmallStore small_;
  const std::map<Id, test::Content>& history_ = small_.history;
  DiskImage image_ = small_.image;
  const std::vector<std::string>& names_ = small_.names;
};

TEST_F(StoreDamageTest, AStoreThatIsWholeHasNone) { EXPECT_FALSE(damage_is_found(image_, "")); }

TEST_F(StoreDamageTest, EachFlippedByteIsFound) {
  for (const std::string& name : names_) {
    const uint64_t size = contents(image_, name).size();
    // Of data and of index blocks a sample, the beginnings whole.
    for (uint64_t at = 0; at < size; at += at < 600 || name.starts_with("snap") ? 1 : 61) {
      DiskImage image = image_;
      std::byte byte;
      contents(image, name).read(at, {&byte, 1});
      byte ^= std::byte{0x41};
      contents(image, name).write(at, {&byte, 1});
      const std::string what = name + " at " + std::to_string(at);
      EXPECT_TRUE(damage_is_found(image, what)) << what;
    }
  }
}

TEST_F(StoreDamageTest, EachLengthIsFound) {
  for (const std::string& name : names_) {
    const uint64_t size = contents(image_, name).size();
    for (const uint64_t length : {uint64_t{0}, uint64_t{1}, uint64_t{8}, uint64_t{63}, size / 2,
                                  size - 4096, size - 1, size + 1, size + 4096}) {
      // Bytes behind the last page of a pack are nobody's.
      if (length == size || length > 2 * size || (length > size && name.starts_with("packs"))) {
        continue;
      }
      DiskImage image = image_;
      contents(image, name).resize(length);
      const std::string what = name + " of " + std::to_string(length);
      EXPECT_TRUE(damage_is_found(image, what)) << what;
    }
  }
}

TEST_F(StoreDamageTest, FilesThatAreMissingOrSwappedAreFound) {
  for (const std::string& name : names_) {
    // A snapshot that is not there was pruned; a branch without HEAD has no layers.
    if (!name.starts_with("snap") && !name.starts_with("heads")) {
      DiskImage image = image_;
      auto [directory, entry] = *image.place(name);
      image.nodes.at(directory).entries.erase(entry);
      EXPECT_TRUE(damage_is_found(image, name + " missing")) << name;
    }
    for (const std::string& other : names_) {
      if (other == name) continue;
      DiskImage image = image_;
      contents(image, name) = contents(image_, other);
      EXPECT_TRUE(damage_is_found(image, name + " is " + other)) << name << " is " << other;
    }
  }
}

TEST_F(StoreDamageTest, FilesOfAnotherStoreAreFound) {
  SmallStore other;
  for (const std::string& name : names_) {
    for (const std::string& foreign : other.names) {
      if (name.substr(0, 4) != foreign.substr(0, 4)) continue;
      DiskImage image = image_;
      contents(image, name) = contents(other.image, foreign);
      EXPECT_TRUE(damage_is_found(image, name + " from elsewhere")) << name;
    }
  }
}

TEST_F(StoreDamageTest, ItIsNamedWithFileOffsetAndPage) {
  test::ModelFileSystem files(image_);
  auto store = Store::open(files.storage()).value();
  const Id newest = store->resolve("").value();
  const auto snapshot = store->load(newest).value();
  const PageEntry entry = snapshot->find(kRamSpace, 31).value();
  const std::string pack = snapshot->file(entry.slot).value()->name();
  std::byte byte{99};
  DiskImage image = image_;
  contents(image, pack).write(entry.offset + 7, {&byte, 1});

  test::ModelFileSystem damaged_files(image);
  auto damaged = Store::open(damaged_files.storage()).value();
  uint64_t last = 0, total = 0;
  const auto report = damaged->verify({}, [&](uint64_t done, uint64_t all) {
    last = done;
    total = all;
    return true;
  });
  ASSERT_TRUE(report);
  ASSERT_EQ(report->damage_count, 1u);
  const Damage& damage = report->damages[0];
  EXPECT_EQ(damage.file, pack);
  EXPECT_EQ(damage.offset, entry.offset);
  EXPECT_THAT(damage.what, HasSubstr("page 31 of memory"));
  EXPECT_EQ(damage.snapshots, std::vector{newest});
  EXPECT_EQ(last, total);
  EXPECT_GT(total, 0u);
  test::Page page;
  const auto read = damaged->load(newest).value()->read_page(kRamSpace, 31, page);
  EXPECT_THAT(read.error().text(), HasSubstr(pack));
  // The others do not have it.
  for (const auto& [id, content] : history_) {
    if (id != newest) {
      EXPECT_TRUE(damaged->verify({id}, {}).value().good());
    }
  }
  EXPECT_FALSE(damaged->verify({}, [](uint64_t, uint64_t) { return false; }));
}

TEST_F(StoreDamageTest, NothingIsRemovedWhileAManifestCannotBeRead) {
  test::ModelFileSystem whole(image_);
  auto before = Store::open(whole.storage()).value();
  const auto heads = before->heads().value();
  // One that no branch goes on from.
  const Id id = std::ranges::find_if(history_, [&](const auto& snapshot) {
                  return std::ranges::none_of(heads, [&](const HeadInfo& info) {
                    return info.head && info.head->parent == snapshot.first;
                  });
                })->first;
  const std::string manifest = snapshot_name(id);
  DiskImage image = image_;
  std::byte byte{99};
  contents(image, manifest).write(60, {&byte, 1});
  test::ModelFileSystem files(image);
  auto store = Store::open(files.storage()).value();
  EXPECT_FALSE(store->recover());
  EXPECT_EQ(files.image().fingerprint(), image.fingerprint());
  size_t damaged = 0;
  const auto infos = store->list().value();
  for (const SnapshotInfo& info : infos) damaged += !info.damage.empty();
  EXPECT_EQ(damaged, 1u);
  // Removed by name it is in nobody's way.
  auto pruned = store->prune({.keep = {}, .remove = {id}, .keep_ids = {}});
  ASSERT_TRUE(pruned) << pruned.error().text();
  EXPECT_TRUE(store->recover());
  EXPECT_TRUE(store->verify({}, {}).value().good());
}

}  // namespace
}  // namespace snapshot
