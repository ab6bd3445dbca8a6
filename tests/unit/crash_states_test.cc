#include "tests/support/crash_states.h"

#include <gmock/gmock.h>

#include <cerrno>
#include <set>
#include <string>

#include "tests/support/model_storage.h"

namespace test {
namespace {

using snapshot::File;
using snapshot::IoQueue;
using snapshot::Storage;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::UnorderedElementsAre;

std::span<const std::byte> bytes(const std::string& text) { return std::as_bytes(std::span(text)); }

std::unique_ptr<File> create(Storage& storage, const std::string& name) {
  return std::move(*storage.create(name, Storage::Caching::kCached));
}

// The content of a file, or "-" where there is none.
std::string content(const DiskImage& image, const std::string& name) {
  auto inode = image.find(name);
  if (!inode) return "-";
  const Contents& contents = image.nodes.at(*inode).contents;
  std::string text(contents.size(), '?');
  contents.read(0, std::as_writable_bytes(std::span(text)));
  return text;
}

// What `look` sees after a crash at the end of everything recorded so far, in every state.
template <typename Look>
std::set<std::string> states(const ModelFileSystem& system, Look look, unsigned samples = 200) {
  CrashReplay replay(system.start());
  for (const Event& event : system.recording()) replay.apply(event);
  std::set<std::string> seen;
  CrashPlan plan{.samples = samples};
  EXPECT_TRUE(visit_crash_states(replay, plan, [&](const DiskImage& image, const std::string&) {
    seen.insert(look(image));
    return true;
  }));
  return seen;
}

auto file_content(const std::string& name) {
  return [name](const DiskImage& image) { return content(image, name); };
}

TEST(CrashStatesTest, ANameIsThereForCertainOnceItsDirectoryIsSynced) {
  ModelFileSystem system;
  auto storage = system.storage();
  auto file = create(*storage, "a");
  ASSERT_TRUE(file->write(0, bytes("x")));
  ASSERT_TRUE(file->sync());
  EXPECT_THAT(states(system, file_content("a")), UnorderedElementsAre("-", "x"));
  ASSERT_TRUE(storage->sync_directory(""));
  EXPECT_THAT(states(system, file_content("a")), ElementsAre("x"));
  ASSERT_TRUE(storage->remove("a"));
  EXPECT_THAT(states(system, file_content("a")), UnorderedElementsAre("-", "x"));
  ASSERT_TRUE(storage->sync_directory(""));
  EXPECT_THAT(states(system, file_content("a")), ElementsAre("-"));
}

TEST(CrashStatesTest, ContentIsThereForCertainOnceItsFileIsSynced) {
  ModelFileSystem system;
  auto storage = system.storage();
  auto file = create(*storage, "a");
  ASSERT_TRUE(storage->sync_directory(""));
  ASSERT_TRUE(file->write(0, bytes("xy")));
  EXPECT_THAT(states(system, file_content("a")),
              UnorderedElementsAre("", std::string(2, '\0'), "xy"))
      << "nothing, size without data, all";
  ASSERT_TRUE(file->sync());
  ASSERT_TRUE(file->write(1, bytes("Z")));
  EXPECT_THAT(states(system, file_content("a")), UnorderedElementsAre("xy", "xZ"));
  ASSERT_TRUE(file->truncate(0));
  EXPECT_THAT(states(system, file_content("a")), UnorderedElementsAre("xy", "xZ", ""));
}

TEST(CrashStatesTest, WritesTearBetweenSectors) {
  ModelFileSystem system;
  auto storage = system.storage();
  auto file = create(*storage, "a");
  ASSERT_TRUE(storage->sync_directory(""));
  ASSERT_TRUE(file->write(0, bytes(std::string(1024, 'o'))));
  ASSERT_TRUE(file->sync());
  ASSERT_TRUE(file->write(256, bytes(std::string(512, 'n'))));
  auto first = std::string(256, 'n'), second = first, old = std::string(256, 'o');
  EXPECT_THAT(states(system, file_content("a")),
              UnorderedElementsAre(old + old + old + old, old + first + old + old,
                                   old + old + second + old, old + first + second + old));
  ASSERT_TRUE(file->punch(0, 1024));
  auto punched = states(system, file_content("a"));
  EXPECT_THAT(punched, Contains(std::string(512, '\0') + second + old));
  EXPECT_THAT(punched, Contains(std::string(1024, '\0')));
}

TEST(CrashStatesTest, ARenameWithinADirectoryIsAtomicAndBetweenTwoIsNot) {
  ModelFileSystem system;
  auto storage = system.storage();
  ASSERT_TRUE(storage->make_directory("tmp"));
  ASSERT_TRUE(storage->make_directory("snap"));
  ASSERT_TRUE(storage->sync_directory(""));
  auto file = create(*storage, "tmp/a");
  ASSERT_TRUE(storage->sync_directory("tmp"));
  ASSERT_TRUE(storage->rename("tmp/a", "tmp/b"));
  auto names = [](const DiskImage& image) {
    std::string text;
    for (const char* name : {"tmp/a", "tmp/b", "snap/c"}) text += image.find(name) ? '1' : '0';
    return text;
  };
  EXPECT_THAT(states(system, names), UnorderedElementsAre("100", "010"));
  ASSERT_TRUE(storage->sync_directory("tmp"));
  ASSERT_TRUE(storage->rename("tmp/b", "snap/c"));
  EXPECT_THAT(states(system, names), UnorderedElementsAre("000", "010", "001", "011"));
  ASSERT_TRUE(storage->sync_directory("snap"));
  EXPECT_THAT(states(system, names), UnorderedElementsAre("001", "011"));
  ASSERT_TRUE(storage->sync_directory("tmp"));
  EXPECT_THAT(states(system, names), ElementsAre("001"));
}

TEST(CrashStatesTest, ARenameThatReplacesLeavesTheOldOrTheNew) {
  ModelFileSystem system;
  auto storage = system.storage();
  auto old = create(*storage, "a"), replacement = create(*storage, "b");
  ASSERT_TRUE(old->write(0, bytes("old")));
  ASSERT_TRUE(old->sync());
  ASSERT_TRUE(replacement->write(0, bytes("new")));
  ASSERT_TRUE(replacement->sync());
  ASSERT_TRUE(storage->sync_directory(""));
  ASSERT_TRUE(storage->rename("b", "a"));
  EXPECT_THAT(states(system, file_content("a")), UnorderedElementsAre("old", "new"));
}

TEST(CrashStatesTest, ADirectoryThatIsNotThereHasNothingInIt) {
  ModelFileSystem system;
  auto storage = system.storage();
  ASSERT_TRUE(storage->make_directory("d"));
  auto file = create(*storage, "d/a");
  ASSERT_TRUE(storage->sync_directory("d"));
  EXPECT_THAT(states(system, file_content("d/a")), UnorderedElementsAre("-", ""));
}

struct Transfer : IoQueue::Operation {
  explicit Transfer(std::string with) : text(std::move(with)) {}
  std::string text;
  iovec vector{text.data(), text.size()};
  std::span<const iovec> vectors() const { return {&vector, 1}; }
};

TEST(CrashStatesTest, ASyncCoversWhatWasCompleteBeforeItWasSubmitted) {
  ModelFileSystem system;
  auto storage = system.storage();
  auto file = create(*storage, "a");
  ASSERT_TRUE(file->write(0, bytes(std::string(1024, 'o'))));
  ASSERT_TRUE(file->sync());
  ASSERT_TRUE(storage->sync_directory(""));
  auto queue = std::move(*storage->make_queue(8));
  Transfer early("E"), late("L"), sync("");
  ASSERT_TRUE(queue->writev(early, *file, early.vectors(), 0));
  ASSERT_EQ(queue->wait_completion(), &early);
  ASSERT_TRUE(queue->writev(late, *file, late.vectors(), 512));
  ASSERT_TRUE(queue->sync(sync, *file));
  ASSERT_TRUE(queue->submit());
  auto both = [](const DiskImage& image) {
    auto text = content(image, "a");
    return std::string{text[0], text[512]};
  };
  EXPECT_THAT(states(system, both), UnorderedElementsAre("oo", "Eo", "oL", "EL"));
  ASSERT_EQ(queue->wait_completion(), &late);
  EXPECT_THAT(states(system, both), UnorderedElementsAre("oo", "Eo", "oL", "EL"));
  ASSERT_EQ(queue->wait_completion(), &sync);
  EXPECT_THAT(states(system, both), UnorderedElementsAre("Eo", "EL"));
  ASSERT_TRUE(file->sync());
  EXPECT_THAT(states(system, both), ElementsAre("EL"));
}

TEST(CrashStatesTest, AFailedSyncLosesWhatWasDirtyForEver) {
  ModelFileSystem system;
  auto storage = system.storage();
  auto file = create(*storage, "a");
  ASSERT_TRUE(file->write(0, bytes(std::string(1024, 'o'))));
  ASSERT_TRUE(file->sync());
  ASSERT_TRUE(storage->sync_directory(""));
  ASSERT_TRUE(file->write(0, bytes("F")));
  system.set_faults([](const CallSite&) { return Fault{.error = EIO}; });
  EXPECT_FALSE(file->sync());
  system.set_faults({});
  ASSERT_TRUE(file->write(512, bytes("L")));
  ASSERT_TRUE(file->sync());
  auto both = [](const DiskImage& image) {
    auto text = content(image, "a");
    return std::string{text[0], text[512]};
  };
  EXPECT_THAT(states(system, both), UnorderedElementsAre("oL", "FL"));
}

TEST(CrashStatesTest, AFailedWriteMayHaveLeftAnything) {
  ModelFileSystem system;
  auto storage = system.storage();
  auto file = create(*storage, "a");
  ASSERT_TRUE(file->write(0, bytes(std::string(1024, 'o'))));
  ASSERT_TRUE(file->sync());
  ASSERT_TRUE(storage->sync_directory(""));
  system.set_faults([](const CallSite&) { return Fault{.error = EIO}; });
  EXPECT_FALSE(file->write(0, bytes(std::string(1024, 'n'))));
  system.set_faults({});
  ASSERT_TRUE(file->sync());
  auto seen = states(system, file_content("a"));
  EXPECT_EQ(seen.size(), 4u);
  EXPECT_THAT(seen, Contains(std::string(512, 'n') + std::string(512, 'o')));
}

TEST(CrashStatesTest, StatesAreTheSameForTheSameSeed) {
  ModelFileSystem system;
  auto storage = system.storage();
  auto file = create(*storage, "a");
  ASSERT_TRUE(file->write(0, bytes(std::string(8192, 'x'))));
  CrashReplay replay(system.start());
  for (const Event& event : system.recording()) replay.apply(event);
  auto run = [&](uint64_t seed) {
    std::vector<uint64_t> prints;
    (void)visit_crash_states(replay, {.samples = 20, .seed = seed},
                             [&](const DiskImage& image, const std::string&) {
                               prints.push_back(image.fingerprint());
                               return true;
                             });
    return prints;
  };
  EXPECT_EQ(run(7), run(7));
  EXPECT_NE(run(7), run(8));
}

TEST(CrashStatesTest, EndsWhereTheVisitorSaysSo) {
  ModelFileSystem system;
  auto file = create(*system.storage(), "a");
  CrashReplay replay(system.start());
  for (const Event& event : system.recording()) replay.apply(event);
  int visits = 0;
  EXPECT_FALSE(visit_crash_states(
      replay, {}, [&](const DiskImage&, const std::string&) { return ++visits < 2; }));
  EXPECT_EQ(visits, 2);
}

}  // namespace
}  // namespace test
