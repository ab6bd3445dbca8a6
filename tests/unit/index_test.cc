// How a page is found in what several snapshots wrote. (That it is the right one: store_test.cc.)
#include "snapshot/store/index.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "snapshot/store/store.h"
#include "tests/support/forwarding_storage.h"
#include "tests/support/store_machine.h"
#include "tests/support/temporary_directory.h"

namespace snapshot {
namespace {

using ::testing::ElementsAreArray;
using ::testing::IsEmpty;
using ::testing::SizeIs;

// What was asked of the index's files, in order.
struct Asked {
  std::vector<std::string> announced;
  // By the time at which each was read first.
  std::map<std::string, std::vector<std::string>> announced_before;
};

class WatchedFile : public test::ForwardingFile {
 public:
  WatchedFile(std::unique_ptr<File> beneath, Asked& asked)
      : ForwardingFile(std::move(beneath)), asked_(asked) {}
  void will_need(uint64_t offset, uint64_t length) const override {
    asked_.announced.push_back(name());
    ForwardingFile::will_need(offset, length);
  }
  base::Result<void> read(uint64_t offset, std::span<std::byte> into) const override {
    asked_.announced_before.emplace(name(), asked_.announced);
    return ForwardingFile::read(offset, into);
  }

 private:
  Asked& asked_;
};

class WatchedStorage : public test::ForwardingStorage {
 public:
  WatchedStorage(std::unique_ptr<Storage> beneath, Asked& asked)
      : ForwardingStorage(std::move(beneath)), asked_(asked) {}
  base::Result<std::unique_ptr<File>> open(const std::string& name, Access access,
                                           Caching caching) override {
    TRY_ASSIGN(auto file, ForwardingStorage::open(name, access, caching));
    if (!name.starts_with("runs/")) return file;
    return std::make_unique<WatchedFile>(std::move(file), asked_);
  }

 private:
  Asked& asked_;
};

// A cold disk reads side by side what it would otherwise be asked for one after the other.
TEST(Index, WhereTheNewestRunHasNotThePageAllAreAnnouncedBeforeTheNextIsRead) {
  test::TemporaryDirectory directory;
  const std::string path = directory.file("store");
  auto store = Store::open_or_create(path);
  ASSERT_TRUE(store) << store.error().text();
  test::StoreMachine machine(**store, 4096);
  Id newest;
  // Each much smaller than the one before, so that none is merged.
  for (uint64_t pages : {2000, 300, 20}) {
    for (uint64_t page = 1; page <= pages; ++page) machine.write(page, pages);
    newest = machine.commit(pages == 2000 ? Kind::kFull : Kind::kIncremental).value();
  }
  machine.end();
  store->reset();

  Asked asked;
  auto storage = std::make_unique<WatchedStorage>(std::move(*open_storage(path)), asked);
  auto again = Store::open(std::move(storage));
  ASSERT_TRUE(again) << again.error().text();
  auto snapshot = (*again)->load(newest);
  ASSERT_TRUE(snapshot) << snapshot.error().text();
  std::vector<std::string> runs;
  for (const RunInfo& run : (*snapshot)->manifest().spaces.at(0).runs) {
    runs.push_back(run_name(run.id));
  }
  ASSERT_THAT(runs, SizeIs(3));

  ASSERT_TRUE((*snapshot)->find(kRamSpace, 10));
  EXPECT_THAT(asked.announced, IsEmpty());  // the newest has it
  auto entry = (*snapshot)->find(kRamSpace, 2000);
  ASSERT_TRUE(entry) << entry.error().text();
  EXPECT_THAT(asked.announced_before[runs[0]], IsEmpty());
  EXPECT_THAT(asked.announced_before[runs[1]], ElementsAreArray(runs));
  EXPECT_THAT(asked.announced_before[runs[2]], ElementsAreArray(runs));
  ASSERT_TRUE((*snapshot)->find(kRamSpace, 1000));
  EXPECT_THAT(asked.announced, SizeIs(3));  // once
}

}  // namespace
}  // namespace snapshot
