// The disk of a snapshot folded into its base image, minivmm commit: after a power cut at any
// moment, and after every call that fails, the image is what it was, or the disk, or the same
// command makes it the disk. The store itself is only read.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <set>

#include "snapshot/disk/base_identity.h"
#include "snapshot/fold_disk.h"
#include "snapshot/store/store.h"
#include "tests/crash/faults.h"
#include "tests/crash/mutations.h"
#include "tests/crash/script.h"
#include "tests/crash/watched_directory.h"
#include "tests/support/temporary_directory.h"
#include "vmm/base/fd.h"

namespace test {
namespace {

using snapshot::Id;
using snapshot::Kind;

constexpr uint64_t kBlocks = 16;

std::string bytes_of(const Pages& pages) {
  std::string bytes;
  for (uint64_t value : pages) {
    PageBytes page = page_bytes(value);
    bytes.append(reinterpret_cast<const char*>(page.bytes.data()), snapshot::kPageBytes);
  }
  return bytes;
}

// A snapshot with a disk over an image, and copies of the image that it is folded into.
class DiskCommit {
 public:
  DiskCommit() : script_(1) {
    Pages image;
    for (uint64_t block = 0; block < kBlocks; ++block) image.push_back(base_value(block));
    original_ = bytes_of(image);
    for (const char* name : {"original", "copy", "crashed"}) {
      std::filesystem::create_directory(directory_.file(name));
    }
    // It stays, so that no copy is the same file.
    write_directory(directory_.file("original"), of_image());

    script_.create_store();
    auto machine = script_.boot(4, kBlocks, identity());
    script_.take(machine, Kind::kFull, [&] { script_.write(machine, 9, 909); });
    for (uint64_t block : {1, 2, 3, 15}) script_.write(machine, block, 300 + block);
    script_.discard(machine, 5, 2);
    id_ = script_.take(machine, Kind::kIncremental);
    script_.stop(machine);
    folded_ = bytes_of(script_.promises().must.at(id_).disk);
  }

  ModelFileSystem& store_files() { return script_.system(); }
  // Another copy of the image as it was; the directory that it is in.
  std::string new_copy() {
    std::filesystem::remove_all(directory_.file("copy"));
    std::filesystem::create_directory(directory_.file("copy"));
    write_directory(directory_.file("copy"), of_image());
    return directory_.file("copy");
  }
  base::Result<snapshot::FoldReport> fold(const std::string& directory) {
    auto& store = script_.store();
    TRY_ASSIGN(auto snapshot, store.load(id_));
    return snapshot::fold_disk(*snapshot, store.format().uuid, 0, directory + "/image", {});
  }
  std::string what_is_wrong(const std::string& directory) const {
    DiskImage image = image_of_directory(directory);
    if (content_of(image, "image") != folded_) return "the image is not the disk";
    return image.find("image.folding") ? "the mark of an interrupted commit is left" : "";
  }
  // With what a crash left. `done`: somebody was told that the image is the disk.
  std::string what_is_wrong(const DiskImage& left, bool done) {
    std::string crashed = directory_.file("crashed");
    write_directory(crashed, left);
    if (done) return what_is_wrong(crashed);
    auto report = fold(crashed);
    if (report) return what_is_wrong(crashed);
    return content_of(left, "image") == folded_ ? "" : report.error().text();
  }

 private:
  DiskImage of_image() const {
    DiskImage image;
    image.nodes[kRootInode].entries["image"] = kRootInode + 1;
    auto& contents = image.nodes[kRootInode + 1].contents;
    contents.write(0, std::as_bytes(std::span(original_)));
    contents.resize(original_.size());
    return image;
  }
  std::string identity() const {
    std::string path = directory_.file("original/image");
    auto fd = base::open_file(path, O_RDONLY);
    auto identity = snapshot::identify_base(fd->get(), original_.size(), path);
    auto bytes = snapshot::encode_base(*identity);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }

  TemporaryDirectory directory_;
  std::string original_, folded_;
  Script script_;
  Id id_;
};

// What a fold does to the directory of its image; marks say when somebody was told.
struct RecordedFold {
  DiskImage start;
  Recording recording;
};
RecordedFold record(DiskCommit& scene) {
  WatchedDirectory watched(scene.new_copy());
  watched.mark("0 disk commit");
  auto report = scene.fold(watched.path());
  EXPECT_TRUE(report) << report.error().text();
  watched.mark("1 done");
  return {watched.start(), watched.recording()};
}

CrashFailure find_failure(DiskCommit& scene, const RecordedFold& recorded, const CrashPlan& plan,
                          size_t from = 0) {
  return find_failing_state(
      recorded.start, recorded.recording, plan, from,
      [&](const DiskImage& left, size_t step) { return scene.what_is_wrong(left, step == 1); });
}

TEST(DiskCommitTest, AfterEveryCrashItCanBeCompleted) {
  DiskCommit scene;
  RecordedFold recorded = record(scene);
  EXPECT_GT(recorded.recording.size(), 10u);
  auto failure = find_failure(scene, recorded, {.samples = 16, .seed = 1});
  EXPECT_EQ(failure.text, "") << "after " << failure.states << " states";
  EXPECT_GT(failure.states, 50u);
}

TEST(MutationTest, OfADiskCommit) {
  DiskCommit scene;
  RecordedFold recorded = record(scene);
  auto all = mutations(recorded.recording);
  EXPECT_GT(all.size(), 8u);
  std::set<std::string> not_caught;
  for (const Mutation& mutation : all) {
    RecordedFold mutated{recorded.start, mutation.recording};
    auto failure = find_failure(scene, mutated, {.samples = 4, .seed = 1}, mutation.from);
    if (failure.text.empty()) not_caught.insert(mutation.name);
  }
  EXPECT_EQ(not_caught, std::set<std::string>());
}

class DiskCommitFaultTest : public ::testing::TestWithParam<Way> {
 protected:
  // The first fold meets a fault in a call on the image or what lies beside it.
  bool run(uint64_t number) {
    WatchedDirectory watched(scene_.new_copy());
    watched.mark("0 disk commit");
    FaultAt fault(watched, number, GetParam());
    auto report = scene_.fold(watched.path());
    fault.end();
    SCOPED_TRACE(fault.text());
    size_t from = watched.recording().size();
    watched.mark(report ? "1 done" : "0 failed");
    if (!report) {
      EXPECT_TRUE(fault.met());
      auto again = scene_.fold(watched.path());
      if (again) watched.mark("1 done");
    }
    EXPECT_EQ(scene_.what_is_wrong(watched.path()), "");
    // A power cut may make something of what failed to become durable, and of what a killed
    // process left undone.
    bool sync =
        fault.met() && (fault.call() == Call::kSync || fault.call() == Call::kSyncDirectory);
    if ((sync && fault.failed()) || (GetParam().all_later && fault.changes())) {
      RecordedFold recorded{watched.start(), watched.recording()};
      auto failed = std::ranges::find_if(recorded.recording, &Event::failed);
      from = std::min(from, static_cast<size_t>(failed - recorded.recording.begin()));
      EXPECT_EQ(find_failure(scene_, recorded, {.samples = 2, .seed = number + 1}, from).text, "");
    }
    return fault.met();
  }

  DiskCommit scene_;
};

TEST_P(DiskCommitFaultTest, AtEveryCallOnTheImage) {
  uint64_t number = 0;
  while (run(number)) ++number;
  EXPECT_GE(number, 15u);
}

TEST_P(DiskCommitFaultTest, AtEveryCallOnTheStore) {
  uint64_t number = 0;
  for (bool there = true; there; ++number) {
    std::string copy = scene_.new_copy();
    FaultAt fault(scene_.store_files(), number, GetParam());
    auto report = scene_.fold(copy);
    fault.end();
    SCOPED_TRACE(fault.text());
    if (!report) {
      EXPECT_THAT(report.error().text(), ::testing::HasSubstr(fault.name()));
      auto again = scene_.fold(copy);
      EXPECT_TRUE(again) << again.error().text();
    }
    EXPECT_EQ(scene_.what_is_wrong(copy), "");
    there = fault.met();
  }
  EXPECT_GE(number, 8u);
}

std::vector<Way> ways_and_kill() {
  std::vector<Way> all = ways();
  all.push_back({"killed", {.error = EIO, .not_made = true}, [](Call) { return true; }, true});
  return all;
}
INSTANTIATE_TEST_SUITE_P(Ways, DiskCommitFaultTest, ::testing::ValuesIn(ways_and_kill()),
                         [](const auto& way) { return way_name(way.param); });

}  // namespace
}  // namespace test
