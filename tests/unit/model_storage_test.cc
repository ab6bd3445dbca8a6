#include "tests/support/model_storage.h"

#include <gmock/gmock.h>

#include <cerrno>
#include <string>

namespace test {
namespace {

using snapshot::File;
using snapshot::IoQueue;
using snapshot::Storage;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::span<const std::byte> bytes(const std::string& text) { return std::as_bytes(std::span(text)); }

std::string content(const File& file) {
  std::string text(*file.size(), '?');
  EXPECT_TRUE(file.read(0, std::as_writable_bytes(std::span(text))));
  return text;
}

std::unique_ptr<File> create(Storage& storage, const std::string& name) {
  auto file = storage.create(name, Storage::Caching::kCached);
  EXPECT_TRUE(file) << file.error().text();
  return std::move(*file);
}

std::unique_ptr<File> open(Storage& storage, const std::string& name,
                           Storage::Access access = Storage::Access::kWrite) {
  auto file = storage.open(name, access, Storage::Caching::kCached);
  EXPECT_TRUE(file) << file.error().text();
  return std::move(*file);
}

// Fails the call with this number.
FaultPlan fail_call(uint64_t number, Fault fault) {
  return [=](const CallSite& site) {
    return site.number == number ? std::optional(fault) : std::nullopt;
  };
}

TEST(ModelStorageTest, FilesKeepWhatIsWritten) {
  ModelFileSystem system;
  auto storage = system.storage();
  ASSERT_TRUE(storage->make_directory("packs"));
  ASSERT_TRUE(storage->make_directory("packs"));
  auto file = create(*storage, "packs/a");
  ASSERT_TRUE(file->write(3, bytes("abc")));
  EXPECT_EQ(content(*file), std::string("\0\0\0abc", 6));
  ASSERT_TRUE(file->truncate(4));
  ASSERT_TRUE(file->truncate(8));
  EXPECT_EQ(content(*file), std::string("\0\0\0a\0\0\0\0", 8));
  ASSERT_TRUE(file->write(8192, bytes("z")));
  ASSERT_TRUE(file->punch(0, 4096));
  EXPECT_EQ(*file->size(), 8193u);
  EXPECT_EQ(content(*open(*storage, "packs/a")), std::string(8192, '\0') + "z");

  std::byte past[2];
  EXPECT_THAT(file->read(8192, past).error().text(), HasSubstr("packs/a"));
  EXPECT_EQ(storage->create("packs/a", Storage::Caching::kCached).error().os_error(), EEXIST);
  EXPECT_EQ(storage->create("none/a", Storage::Caching::kCached).error().os_error(), ENOENT);
  auto reader = open(*storage, "packs/a", Storage::Access::kRead);
  EXPECT_EQ(reader->write(0, bytes("x")).error().os_error(), EBADF);
}

TEST(ModelStorageTest, NamesAreGivenMovedAndTaken) {
  ModelFileSystem system;
  auto storage = system.storage();
  ASSERT_TRUE(storage->make_directory("tmp"));
  ASSERT_TRUE(storage->make_directory("snap"));
  auto first = create(*storage, "tmp/1");
  auto second = create(*storage, "snap/2");
  ASSERT_TRUE(first->write(0, bytes("first")));
  ASSERT_TRUE(storage->rename("tmp/1", "snap/2"));
  EXPECT_THAT(*storage->list("snap"), ElementsAre("2"));
  EXPECT_THAT(*storage->list("."), ElementsAre("snap", "tmp"));
  EXPECT_EQ(content(*open(*storage, "snap/2")), "first");
  EXPECT_FALSE(*storage->exists("tmp/1"));
  EXPECT_EQ(storage->remove("snap").error().os_error(), EISDIR);
  ASSERT_TRUE(storage->remove("snap/2"));
  EXPECT_EQ(content(*first), "first") << "open files live on";
  EXPECT_EQ(storage->list("none").error().os_error(), ENOENT);
  EXPECT_EQ(storage->sync_directory("none").error().os_error(), ENOENT);
  EXPECT_TRUE(storage->sync_directory("."));
}

TEST(ModelStorageTest, LocksExcludeAndEndWithTheirFile) {
  ModelFileSystem system;
  auto storage = system.storage();
  auto first = create(*storage, "lock");
  auto second = open(*storage, "lock");
  EXPECT_TRUE(*first->try_lock(File::Lock::kShared));
  EXPECT_TRUE(*second->try_lock(File::Lock::kShared));
  EXPECT_FALSE(*second->try_lock(File::Lock::kExclusive));
  first.reset();
  EXPECT_TRUE(*second->try_lock(File::Lock::kExclusive));
  auto reader = open(*storage, "lock", Storage::Access::kRead);
  EXPECT_FALSE(*reader->try_lock(File::Lock::kShared));
  EXPECT_EQ(reader->try_lock(File::Lock::kExclusive).error().os_error(), EBADF);
  ASSERT_TRUE(second->unlock());
  EXPECT_TRUE(*reader->try_lock(File::Lock::kShared));

  ModelFileSystem after_crash(system.image());
  auto again = after_crash.storage();
  EXPECT_TRUE(*open(*again, "lock")->try_lock(File::Lock::kExclusive));
}

struct Transfer : IoQueue::Operation {
  explicit Transfer(std::string with) : text(std::move(with)) {}
  std::string text;
  iovec vector{text.data(), text.size()};
  std::span<const iovec> vectors() const { return {&vector, 1}; }
};

TEST(ModelStorageTest, TransfersOfAQueueFinishLateAndOutOfOrderAndAllOfThem) {
  bool out_of_order = false, held_back = false;
  for (uint64_t seed = 0; seed < 8; ++seed) {
    ModelFileSystem system;
    system.set_schedule(seed);
    auto storage = system.storage();
    auto file = create(*storage, "a");
    auto queue = std::move(*storage->make_queue(8));
    Transfer writes[] = {Transfer("aa"), Transfer("bb"), Transfer("cc"), Transfer("dd")};
    for (int i = 0; i < 4; ++i) {
      ASSERT_TRUE(queue->writev(writes[i], *file, writes[i].vectors(), 2 * i));
    }
    EXPECT_EQ(queue->in_flight(), 4u);
    ASSERT_TRUE(queue->submit());
    EXPECT_TRUE(queue->event().consume());
    int next = 0;
    while (queue->in_flight() > 0) {
      auto* done = queue->next_completion();
      if (done == nullptr) {
        held_back = true;
        EXPECT_TRUE(queue->event().consume()) << "announced again";
        continue;
      }
      EXPECT_FALSE(done->pending);
      EXPECT_EQ(done->result, 2);
      if (done != &writes[next++]) out_of_order = true;
    }
    EXPECT_EQ(queue->wait_completion(), nullptr);
    EXPECT_EQ(content(*file), "aabbccdd");
    EXPECT_EQ(system.misuse(), "");
  }
  EXPECT_TRUE(out_of_order);
  EXPECT_TRUE(held_back);
}

TEST(ModelStorageTest, AWriteIsSeenWhenItIsComplete) {
  ModelFileSystem system;
  auto storage = system.storage();
  auto file = create(*storage, "a");
  auto queue = std::move(*storage->make_queue(8));
  Transfer write("new"), read("???");
  ASSERT_TRUE(queue->writev(write, *file, write.vectors(), 0));
  ASSERT_TRUE(queue->submit());
  EXPECT_EQ(content(*file), "");
  EXPECT_EQ(queue->wait_completion(), &write);
  EXPECT_EQ(content(*file), "new");
  ASSERT_TRUE(queue->readv(read, *file, read.vectors(), 1));
  EXPECT_EQ(queue->wait_completion(), &read);
  EXPECT_EQ(read.result, 2) << "the end of the file is a short read";
  EXPECT_EQ(read.text, "ew?");
}

TEST(ModelStorageTest, MemoryThatChangesUnderAWriteIsNoticed) {
  ModelFileSystem system;
  auto storage = system.storage();
  auto file = create(*storage, "a");
  auto queue = std::move(*storage->make_queue(8));
  Transfer write("new");
  ASSERT_TRUE(queue->writev(write, *file, write.vectors(), 0));
  ASSERT_TRUE(queue->submit());
  write.text[0] = 'N';
  EXPECT_EQ(queue->wait_completion(), &write);
  EXPECT_THAT(system.misuse(), HasSubstr("memory changed"));
}

TEST(ModelStorageTest, DirectTransfersMustBeAligned) {
  ModelFileSystem system;
  system.set_alignment(4096);
  auto storage = system.storage();
  auto file = std::move(*storage->create("a", Storage::Caching::kDirect));
  EXPECT_EQ(file->alignment(), 4096u);
  EXPECT_EQ(file->write(0, bytes("short")).error().os_error(), EINVAL);
  EXPECT_THAT(system.misuse(), HasSubstr("not aligned"));
  EXPECT_TRUE(open(*storage, "a")->write(0, bytes("cached")));
}

TEST(ModelStorageTest, EveryCallCanFailAndNamesItsFile) {
  // Each step in order, so that call N is step N.
  auto run = [](ModelFileSystem& system) {
    auto storage = system.storage();
    std::vector<base::Result<void>> results;
    auto add = [&](auto result) {
      results.push_back(result ? base::Result<void>() : std::unexpected(result.error()));
      return result;
    };
    add(storage->make_directory("d"));
    if (!*storage->exists("d")) return results;
    auto file = add(storage->create("d/f", Storage::Caching::kCached));
    if (!file) return results;
    add((*file)->write(0, bytes("text")));
    add((*file)->truncate(2));
    add((*file)->allocate(0, 4096));
    add((*file)->punch(0, 1));
    std::byte one[1];
    add((*file)->read(0, one));
    add((*file)->sync());
    add(storage->list("d"));
    add(storage->sync_directory("d"));
    add(storage->rename("d/f", "d/g"));
    if (!*storage->exists("d/g")) return results;
    add(storage->open("d/g", Storage::Access::kRead, Storage::Caching::kCached));
    add(storage->remove("d/g"));
    return results;
  };
  ModelFileSystem good;
  for (const auto& result : run(good)) EXPECT_TRUE(result) << result.error().text();
  ASSERT_EQ(good.calls(), 13u);
  for (uint64_t number = 0; number < good.calls(); ++number) {
    ModelFileSystem system;
    system.set_faults(fail_call(number, {.error = EIO}));
    auto results = run(system);
    ASSERT_GT(results.size(), number);
    for (size_t i = 0; i < results.size(); ++i) {
      if (i == 6 && number == 2) continue;  // nothing written, nothing to read
      EXPECT_EQ(results[i].has_value(), i != number) << i << " with fault at " << number;
    }
    EXPECT_EQ(results[number].error().os_error(), EIO);
    EXPECT_THAT(results[number].error().text(), HasSubstr(" d"));
  }
}

TEST(ModelStorageTest, AShortWriteLeavesItsHalf) {
  ModelFileSystem system;
  auto storage = system.storage();
  auto file = create(*storage, "a");
  system.set_faults([](const CallSite& site) -> std::optional<Fault> {
    if (site.call != Call::kWrite) return {};
    return Fault{.error = ENOSPC, .short_write = true};
  });
  EXPECT_EQ(file->write(0, bytes("abcd")).error().os_error(), ENOSPC);
  EXPECT_EQ(content(*file), "ab");
  auto queue = std::move(*storage->make_queue(8));
  Transfer write("efgh");
  ASSERT_TRUE(queue->writev(write, *file, write.vectors(), 0));
  ASSERT_EQ(queue->wait_completion(), &write);
  EXPECT_EQ(write.result, 2);
  EXPECT_EQ(content(*file), "ef");
}

TEST(ModelStorageTest, AFailedSyncMayDropWhatWasDirty) {
  for (bool drop : {false, true}) {
    ModelFileSystem system;
    auto storage = system.storage();
    auto file = create(*storage, "a");
    ASSERT_TRUE(file->write(0, bytes("old")));
    ASSERT_TRUE(file->sync());
    ASSERT_TRUE(file->write(0, bytes("new")));
    system.set_faults(fail_call(system.calls(), {.error = EIO, .drop_unsynced = drop}));
    EXPECT_EQ(file->sync().error().os_error(), EIO);
    EXPECT_EQ(content(*file), drop ? "old" : "new");
    EXPECT_TRUE(file->sync()) << "as on Linux";
  }
}

TEST(ModelStorageTest, AFullFileSystemGivesNoMoreSpace) {
  ModelFileSystem system;
  system.set_capacity(8192);
  auto storage = system.storage();
  auto file = create(*storage, "a");
  EXPECT_TRUE(file->allocate(0, 8192));
  EXPECT_EQ(*storage->free_bytes(), 0u);
  EXPECT_TRUE(file->write(4096, bytes("reserved")));
  EXPECT_EQ(file->write(8192, bytes("more")).error().os_error(), ENOSPC);
  ASSERT_TRUE(file->punch(0, 4096));
  EXPECT_EQ(*storage->free_bytes(), 4096u);
  EXPECT_TRUE(file->write(8192, bytes("more")));
  ASSERT_TRUE(storage->remove("a"));
  EXPECT_EQ(*storage->free_bytes(), 0u) << "still open";
  file.reset();
  EXPECT_EQ(*storage->free_bytes(), 8192u);
}

}  // namespace
}  // namespace test
