#include "snapshot/store/store.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <future>
#include <random>
#include <thread>

#include "snapshot/working_set.h"
#include "tests/support/model_storage.h"
#include "tests/support/store_machine.h"
#include "tests/support/temporary_directory.h"

namespace snapshot {
namespace {

using test::Content;
using test::differs;
using test::StoreMachine;
using ::testing::HasSubstr;

class StoreTest : public ::testing::Test {
 protected:
  StoreTest() { reopen(); }
  void reopen() {
    store_.reset();
    auto store = Store::open_or_create(directory_.file("store"));
    if (!store) throw std::runtime_error(store.error().text());
    store_ = std::move(*store);
  }
  size_t files(const std::string& folder) { return store_->storage().list(folder).value().size(); }
  void expect_history(const StoreMachine& machine) {
    for (const auto& [id, content] : machine.history()) {
      auto snapshot = store_->load(id);
      ASSERT_TRUE(snapshot) << snapshot.error().text();
      EXPECT_EQ(differs(**snapshot, content, machine.pages()), "");
    }
  }

  test::TemporaryDirectory directory_;
  std::unique_ptr<Store> store_;
};

TEST_F(StoreTest, WhatIsCommittedIsReadAfterOpeningAgain) {
  StoreMachine machine(*store_, 100);
  machine.write(0, 7);
  machine.write(99, 8);
  const auto full = machine.commit(Kind::kFull);
  ASSERT_TRUE(full) << full.error().text();
  machine.write(0, 0);
  machine.write(50, 9);
  const auto next = machine.commit(Kind::kIncremental);
  ASSERT_TRUE(next) << next.error().text();
  machine.end();
  reopen();

  expect_history(machine);
  auto snapshot = store_->load(*next);
  ASSERT_TRUE(snapshot);
  const Manifest& manifest = (*snapshot)->manifest();
  EXPECT_EQ(manifest.parent, *full);
  EXPECT_EQ(manifest.kind, Kind::kIncremental);
  EXPECT_EQ(manifest.vm_name, "vm");
  EXPECT_EQ(manifest.config, "{\"vcpus\":1}");
  EXPECT_EQ(manifest.memory, (std::vector<MemoryRegion>{{0, 100 * kPageBytes}}));
  EXPECT_EQ(manifest.ram_pages, 1u);
  EXPECT_EQ(manifest.zero_pages, 1u);
  EXPECT_EQ(manifest.pause_ns, 5u);
  auto sections = (*snapshot)->sections();
  ASSERT_TRUE(sections);
  EXPECT_EQ(sections->take("vcpu0", 1).value().u64(), 3u);
  EXPECT_EQ(sections->take("clock", 2).value().string(9), "now");
  EXPECT_TRUE(sections->finish());
}

TEST_F(StoreTest, ListAndResolve) {
  EXPECT_THAT(store_->resolve("").error().text(), HasSubstr("has no snapshot"));
  StoreMachine machine(*store_, 10);
  machine.write(1, 1);
  const Id first = machine.commit(Kind::kFull).value();
  machine.write(1, 2);
  const Id second = machine.commit(Kind::kIncremental).value();
  const auto infos = store_->list();
  ASSERT_TRUE(infos);
  ASSERT_EQ(infos->size(), 2u);
  EXPECT_EQ((*infos)[0].id, first);
  EXPECT_EQ((*infos)[1].id, second);
  EXPECT_EQ((*infos)[1].parent, first);
  EXPECT_EQ((*infos)[1].ram_pages, 1u);
  EXPECT_GT((*infos)[1].bytes, kPageBytes);
  EXPECT_EQ(store_->resolve("").value(), second);
  EXPECT_EQ(store_->resolve(first.text()).value(), first);
  EXPECT_EQ(store_->resolve(first.text().substr(0, 12)).value(), first);
  const auto none = store_->resolve("zz");
  ASSERT_FALSE(none);
  EXPECT_THAT(none.error().text(), HasSubstr(first.text()));
  EXPECT_THAT(none.error().text(), HasSubstr(second.text()));
}

TEST_F(StoreTest, ADirectoryThatHoldsSomethingElseIsRefused) {
  std::filesystem::create_directory(directory_.file("other"));
  std::ofstream(directory_.file("other/letter.txt")) << "dear";
  const auto store = Store::open_or_create(directory_.file("other"));
  ASSERT_FALSE(store);
  EXPECT_THAT(store.error().text(), HasSubstr("letter.txt"));
  EXPECT_THAT(Store::open(directory_.file("other")).error().text(), HasSubstr("no FORMAT"));
}

TEST(StoreModelTest, LookUpsOverLongChains) {
  test::ModelFileSystem files;
  auto store = Store::create(files.storage()).value();
  std::mt19937_64 random(1);
  constexpr uint64_t kPages = 3000;
  StoreMachine machine(*store, kPages);
  for (uint64_t page = 0; page < kPages; page += 2) machine.write(page, page + 1);
  ASSERT_TRUE(machine.commit(Kind::kFull));
  size_t most_runs = 0;
  for (int i = 0; i < 1000; ++i) {
    for (uint64_t n = random() % 8; n > 0; --n) {
      machine.write(random() % kPages, random() % 5 == 0 ? 0 : random());
    }
    const auto id = machine.commit(Kind::kIncremental);
    ASSERT_TRUE(id) << id.error().text();
    const auto snapshot = store->load(*id).value();
    most_runs = std::max(most_runs, snapshot->manifest().spaces[0].runs.size());
    if (i % 100 == 13) {
      EXPECT_EQ(differs(*snapshot, machine.content(), kPages), "");
    }
    if (i % 3 != 0) {
      const auto merged = machine.branch().merge_if_due();
      ASSERT_TRUE(merged) << merged.error().text();
    }
  }
  EXPECT_LE(most_runs, kMaxRuns);
  EXPECT_EQ(differs(*machine.branch().parent(), machine.content(), kPages), "");
  const auto report = store->verify({}, {});
  ASSERT_TRUE(report);
  EXPECT_TRUE(report->good()) << report->damages[0].what;
  EXPECT_EQ(report->snapshots, 1001u);
}

TEST_F(StoreTest, TheListOfRunsIsBoundedWithoutMergesInTheBackground) {
  StoreMachine machine(*store_, 3000);
  machine.write(1, 1);
  ASSERT_TRUE(machine.commit(Kind::kFull));
  for (uint64_t i = 0; i < 60; ++i) {
    machine.write(i * 7, i + 1);
    machine.write(i * 11, 0);
    const auto id = machine.commit(Kind::kIncremental);
    ASSERT_TRUE(id) << id.error().text();
    EXPECT_LE(store_->load(*id).value()->manifest().spaces[0].runs.size(), kMaxRuns);
  }
  expect_history(machine);
}

TEST_F(StoreTest, PruneKeepsWhatIsKeptAsItWas) {
  std::mt19937_64 random(2);
  StoreMachine machine(*store_, 500);
  for (uint64_t page = 0; page < 500; ++page) machine.write(page, page + 1);
  ASSERT_TRUE(machine.commit(Kind::kFull));
  std::vector<Id> ids;
  for (int i = 0; i < 40; ++i) {
    for (int n = 0; n < 30; ++n) machine.write(random() % 500, random() % 3);
    // What was before is seen no more, but in the two that are kept for another reason.
    for (uint64_t page = 0; i == 20 && page < 500; ++page) machine.write(page, 1000 + page);
    ids.push_back(machine.commit(Kind::kIncremental).value());
    ASSERT_TRUE(machine.branch().merge_if_due());
  }
  const size_t packs = files("packs");
  const auto held = store_->load(ids[3]).value()->hold();
  ASSERT_TRUE(held);
  const auto report = store_->prune({.keep = 5, .remove = {}, .keep_ids = {ids[10]}});
  ASSERT_TRUE(report) << report.error().text();
  EXPECT_EQ(report->removed.size(), 41u - 7u);
  EXPECT_EQ(report->in_use, std::vector{ids[3]});
  EXPECT_GT(report->freed_bytes, 0u);
  EXPECT_LT(files("packs"), packs);
  const auto infos = store_->list().value();
  EXPECT_EQ(infos.size(), 7u);
  for (const SnapshotInfo& info : infos) {
    EXPECT_EQ(differs(*store_->load(info.id).value(), machine.history().at(info.id), 500), "");
  }
  EXPECT_TRUE(store_->verify({}, {}).value().good());
  // The machine goes on.
  machine.write(3, 99);
  const auto id = machine.commit(Kind::kIncremental);
  ASSERT_TRUE(id) << id.error().text();
  EXPECT_EQ(differs(*store_->load(*id).value(), machine.content(), 500), "");
}

TEST_F(StoreTest, TheSnapshotAMachineContinuesIsNotPruned) {
  StoreMachine machine(*store_, 10);
  machine.write(1, 1);
  const Id id = machine.commit(Kind::kFull).value();
  ASSERT_TRUE(save_working_set(store_->storage(), id, {1, 2}));
  EXPECT_EQ(store_->prune({.keep = 0, .remove = {}, .keep_ids = {}}).value().in_use,
            std::vector{id});
  machine.end();
  EXPECT_EQ(store_->prune({.keep = {}, .remove = {id}, .keep_ids = {}}).value().removed,
            std::vector{id});
  for (const char* folder : {"snap", "runs", "packs", "heads", "tmp", "ws"}) {
    EXPECT_EQ(files(folder), 0u) << folder;
  }
}

TEST_F(StoreTest, BranchesOfOneSnapshotDoNotMeet) {
  StoreMachine machine(*store_, 50);
  machine.write(1, 1);
  const Id root = machine.commit(Kind::kFull).value();
  const Content at_root = machine.content();
  StoreMachine other(*store_, 50, root, at_root);
  machine.write(2, 2);
  other.write(2, 3);
  other.set_time(100);
  const Id one = machine.commit(Kind::kIncremental).value();
  const Id two = other.commit(Kind::kIncremental).value();
  EXPECT_EQ(differs(*store_->load(one).value(), machine.content(), 50), "");
  EXPECT_EQ(differs(*store_->load(two).value(), other.content(), 50), "");
  EXPECT_EQ(store_->load(two).value()->manifest().parent, root);
  EXPECT_EQ(store_->heads().value().size(), 2u);
  // Each branch keeps its newest; the root is nobody's parent any more in their HEADs.
  const auto report = store_->prune({.keep = 1, .remove = {}, .keep_ids = {}});
  EXPECT_EQ(report.value().removed, std::vector{root});
  EXPECT_EQ(differs(*store_->load(two).value(), other.content(), 50), "");
}

// A machine prunes its own, not those of others in its store.
TEST_F(StoreTest, OfOneBranchAloneTheNewestAreKept) {
  StoreMachine machine(*store_, 10), other(*store_, 10);
  std::vector<Id> ids;
  for (int i = 0; i < 3; ++i) {
    machine.write(1, i + 1);
    ids.push_back(machine.commit(i == 0 ? Kind::kFull : Kind::kIncremental).value());
    other.write(1, i + 1);
    ASSERT_TRUE(other.commit(i == 0 ? Kind::kFull : Kind::kIncremental));
  }
  const auto report =
      store_->prune({.keep = 1, .branch = machine.branch().id(), .remove = {}, .keep_ids = {}});
  ASSERT_TRUE(report) << report.error().text();
  EXPECT_EQ(report->removed, (std::vector{ids[0], ids[1]}));
  EXPECT_EQ(store_->list().value().size(), 4u);
}

// The host's clock is set back between two snapshots.
TEST_F(StoreTest, TheNewestIsTheLastOfItsChain) {
  StoreMachine machine(*store_, 10);
  std::vector<Id> ids;
  for (uint64_t time : {5000, 6000, 1000, 1100, 9000}) {
    machine.write(1, time);
    machine.set_time(time);
    ids.push_back(machine.commit(ids.empty() ? Kind::kFull : Kind::kIncremental).value());
    EXPECT_EQ(store_->resolve("").value(), ids.back()) << time;
  }
  const auto infos = store_->list().value();
  ASSERT_EQ(infos.size(), ids.size());
  for (size_t i = 0; i < ids.size(); ++i) EXPECT_EQ(infos[i].id, ids[i]) << i;
  EXPECT_EQ(infos[2].time_ns, infos[1].time_ns + 1);
  machine.end();
  EXPECT_EQ(store_->prune({.keep = 2, .remove = {}, .keep_ids = {}}).value().removed,
            (std::vector{ids[0], ids[1], ids[2]}));
}

TEST_F(StoreTest, AnAbandonedCommitLeavesNothing) {
  StoreMachine machine(*store_, 10);
  machine.write(1, 1);
  ASSERT_TRUE(machine.commit(Kind::kFull));
  {
    auto commit = machine.branch().begin(Kind::kIncremental).value();
    EXPECT_FALSE(machine.branch().begin(Kind::kIncremental));  // one at a time
    ASSERT_TRUE(commit->create_pack(1 << 20));
    EXPECT_EQ(files("packs"), 2u);
  }
  EXPECT_EQ(files("packs"), 1u);
  EXPECT_EQ(files("tmp"), 0u);
  machine.write(2, 2);
  ASSERT_TRUE(machine.commit(Kind::kIncremental));
  expect_history(machine);
}

TEST_F(StoreTest, RecoveryRemovesWhatNobodyNamesAndNothingElse) {
  StoreMachine machine(*store_, 10);
  machine.write(1, 1);
  ASSERT_TRUE(machine.commit(Kind::kFull));
  auto commit = machine.branch().begin(Kind::kIncremental).value();
  ASSERT_TRUE(commit->create_pack(1 << 20));
  const std::string path = directory_.file("store/");
  const std::string stray = Id{1, 2}.text();
  for (const std::string& name :
       std::vector<std::string>{"packs/" + stray, "runs/" + stray, "layers/0-" + stray,
                                "layers/0-" + stray + ".log", "tmp/" + stray + "-" + stray}) {
    std::ofstream(path + name) << "left over";
  }
  std::ofstream(path + "packs/notes.txt") << "not ours";
  std::ofstream(path + "heads/" + stray + ".lock") << "";
  std::ofstream(path + "heads/notes.txt") << "not ours";
  struct stat left_over{};
  ASSERT_EQ(::stat((path + "packs/" + stray).c_str(), &left_over), 0);
  const auto garbage = store_->recover();
  ASSERT_TRUE(garbage) << garbage.error().text();
  EXPECT_EQ(garbage->files, 5u);
  EXPECT_EQ(garbage->bytes, 5 * 512u * static_cast<uint64_t>(left_over.st_blocks));
  EXPECT_EQ(files("packs"), 3u);
  EXPECT_EQ(files("heads"), 2u);
  EXPECT_EQ(files("layers"), 0u);
  commit->abandon();
  commit.reset();
  expect_history(machine);
}

// A prune has it locked for a moment, and lets it stay.
TEST_F(StoreTest, WhatAPruneOnlyLooksAtCanBeHeld) {
  StoreMachine machine(*store_, 10);
  machine.write(1, 1);
  const Id id = machine.commit(Kind::kFull).value();
  machine.end();
  const auto snapshot = store_->load(id).value();
  auto file = store_->storage()
                  .open(snapshot_name(id), Storage::Access::kWrite, Storage::Caching::kCached)
                  .value();
  ASSERT_TRUE(file->try_lock(File::Lock::kExclusive).value());
  auto held = std::async(std::launch::async, [&] { return snapshot->hold(); });
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  file.reset();
  const auto hold = held.get();
  EXPECT_TRUE(hold) << hold.error().text();
}

TEST_F(StoreTest, AForkedProcessHoldsWhatWasHeld) {
  StoreMachine machine(*store_, 10);
  machine.write(1, 1);
  const Id id = machine.commit(Kind::kFull).value();
  machine.end();
  auto hold = store_->load(id).value()->hold().value();
  base::Fd go_on[2];
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  for (int i : {0, 1}) go_on[i].reset(ends[i]);
  const pid_t child = ::fork();
  if (child == 0) {
    go_on[1].reset();
    char byte = 0;
    ::_exit(::read(go_on[0].get(), &byte, 1) == 0 ? 0 : 1);
  }
  hold.reset();
  const PruneOptions options{.keep = {}, .remove = {id}, .keep_ids = {}};
  EXPECT_EQ(store_->prune(options).value().in_use, std::vector{id});
  go_on[1].reset();
  int status = -1;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(store_->prune(options).value().removed, std::vector{id});
}

TEST_F(StoreTest, LayersBelongToHeadUntilASnapshotHasThem) {
  auto branch = store_->create_branch({}, "vm").value();
  auto layer = branch->create_layer(0);
  ASSERT_TRUE(layer) << layer.error().text();
  auto head = store_->heads().value().at(0).head.value();
  EXPECT_EQ(head.layers, (std::vector<Head::Layer>{{0, layer->id}}));
  auto buffer = std::make_unique<test::PageBuffer>();
  test::fill_page(buffer->bytes, 5);
  ASSERT_TRUE(layer->data->write(3 * kPageBytes, buffer->bytes));
  auto next = branch->create_layer(0);
  ASSERT_TRUE(next);

  auto commit = branch->begin(Kind::kFull).value();
  const Slot slot = commit->add_layer(0, layer->id, *layer->data);
  ASSERT_TRUE(commit->set_pages(kRamSpace, 4, {}));
  ASSERT_TRUE(commit->set_pages(
      disk_space(0), 8,
      {{3, store_->hash(buffer->bytes), slot, 3 * kPageBytes}, {5, 0, kSlotZero, 0}}));
  SnapshotNotes notes;
  notes.disks = {{"disk0", 8 * kPageBytes, false, "base identity"}};
  auto snapshot = commit->finish(base::SectionWriter(), notes);
  ASSERT_TRUE(snapshot) << snapshot.error().text();
  commit.reset();
  EXPECT_EQ((*snapshot)->manifest().disk_pages, 1u);
  EXPECT_EQ((*snapshot)->find(disk_space(0), 0).value().slot, kSlotBase);
  EXPECT_EQ((*snapshot)->find(disk_space(0), 5).value().slot, kSlotZero);
  test::Page page;
  ASSERT_TRUE((*snapshot)->read_page(disk_space(0), 3, page));
  EXPECT_EQ(page, buffer->bytes);
  EXPECT_FALSE((*snapshot)->read_page(disk_space(0), 0, page));

  head = store_->heads().value().at(0).head.value();
  EXPECT_EQ(head.layers, (std::vector<Head::Layer>{{0, next->id}}));
  EXPECT_EQ(head.parent, (*snapshot)->id());
  const Id id = branch->id();
  branch.reset();  // with a layer: stays
  ASSERT_TRUE(store_->recover());
  EXPECT_EQ(files("layers"), 3u);  // the sealed one, the next one and its log
  EXPECT_FALSE(store_->heads().value().at(0).alive);
  ASSERT_TRUE(store_->remove_head(id));
  EXPECT_EQ(files("layers"), 1u);
  EXPECT_TRUE(store_->verify({}, {}).value().good());
}

TEST_F(StoreTest, AnIncrementalTakesLittleMoreThanItsPages) {
  StoreMachine machine(*store_, 20000);
  for (uint64_t page = 0; page < 20000; ++page) machine.write(page, page + 1);
  ASSERT_TRUE(machine.commit(Kind::kFull));
  for (uint64_t i = 0; i < 1000; ++i) machine.write(i * 17, i + 5);
  const Id id = machine.commit(Kind::kIncremental).value();
  EXPECT_LE(store_->list().value().back().bytes, 1000 * kPageBytes * 102 / 100 + (64 << 10));
  EXPECT_EQ(store_->list().value().back().id, id);
}

TEST(StoreModelTest, AFullDiskLeavesTheChainAsItWas) {
  test::ModelFileSystem files;
  auto store = Store::create(files.storage()).value();
  StoreMachine machine(*store, 64);
  machine.write(1, 1);
  const Id full = machine.commit(Kind::kFull).value();
  for (uint64_t page = 0; page < 64; ++page) machine.write(page, page + 1);
  files.set_capacity(32 << 10);
  const auto failed = machine.commit(Kind::kIncremental);
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().os_error(), ENOSPC);
  EXPECT_EQ(store->storage().list("packs").value().size(), 1u);
  EXPECT_EQ(store->storage().list("tmp").value().size(), 0u);
  EXPECT_EQ(store->list().value().size(), 1u);
  files.set_capacity(uint64_t{1} << 40);
  const auto id = machine.commit(Kind::kIncremental);
  ASSERT_TRUE(id) << id.error().text();
  EXPECT_EQ(differs(*store->load(*id).value(), machine.content(), 64), "");
  EXPECT_EQ(differs(*store->load(full).value(), machine.history().at(full), 64), "");
}

TEST(StoreModelTest, APruneMeetsAMachineThatIsJustEnding) {
  using enum test::Call;
  for (const test::Call gone : {kOpen, kRemove}) {
    test::ModelFileSystem files;
    auto store = Store::create(files.storage()).value();
    StoreMachine machine(*store, 64);
    machine.write(1, 1);
    const Id full = machine.commit(Kind::kFull).value();
    machine.write(1, 2);
    ASSERT_TRUE(machine.commit(Kind::kFull));
    // Nobody has its lock any more; its files are there until the first such call.
    const std::string place = head_name(store->new_id().value());
    ASSERT_TRUE(store->storage().create(place + ".lock", Storage::Caching::kCached));
    bool reached = false;
    files.set_faults([&](const test::CallSite& site) -> std::optional<test::Fault> {
      if (!site.name.starts_with(place)) return std::nullopt;
      reached |= site.call == gone;
      if (!reached) return std::nullopt;
      return test::Fault{.error = ENOENT};
    });
    const auto report = store->prune({.keep = {}, .remove = {full}, .keep_ids = {}});
    files.set_faults({});
    ASSERT_TRUE(report) << report.error().text();
    EXPECT_TRUE(reached) << call_name(gone);
    EXPECT_GT(report->freed_bytes, 0u);
  }
}

TEST(StoreModelTest, WhateverFailsTheChainStaysAndTheNextCommitIsComplete) {
  for (uint64_t failing = 0;; ++failing) {
    test::ModelFileSystem files;
    auto store = Store::create(files.storage()).value();
    StoreMachine machine(*store, 64);
    machine.write(1, 1);
    machine.write(2, 2);
    ASSERT_TRUE(machine.commit(Kind::kFull));
    machine.write(2, 3);
    machine.write(1, 0);
    const uint64_t first = files.calls();
    bool reached = false;
    files.set_faults([&](const test::CallSite& site) -> std::optional<test::Fault> {
      if (site.number != first + failing) return std::nullopt;
      reached = true;
      return test::Fault{.error = EIO, .short_write = false, .drop_unsynced = true};
    });
    const auto id = machine.commit(Kind::kIncremental);
    files.set_faults({});
    if (!id) {
      const auto again = machine.commit(Kind::kIncremental);
      ASSERT_TRUE(again) << "call " << failing << ": " << again.error().text();
    }
    for (const auto& [taken, content] : machine.history()) {
      EXPECT_EQ(differs(*store->load(taken).value(), content, 64), "") << "call " << failing;
    }
    EXPECT_TRUE(store->verify({}, {}).value().good()) << "call " << failing;
    EXPECT_EQ(files.misuse(), "");
    machine.end();
    if (!reached) break;
  }
}

}  // namespace
}  // namespace snapshot
