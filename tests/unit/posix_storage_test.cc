// The real file system behind snapshot::Storage.
#include <gmock/gmock.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <memory>

#include "snapshot/storage.h"
#include "tests/support/temporary_directory.h"

namespace snapshot {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Access = Storage::Access;
using Caching = Storage::Caching;

struct alignas(4096) Page {
  std::array<std::byte, 4096> bytes{};
};

std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text));
}

class StorageTest : public ::testing::Test {
 protected:
  StorageTest() : storage_(open_storage(directory_.path()).value()) {}
  std::string content(const std::string& name) {
    std::ifstream file(directory_.file(name), std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }

  test::TemporaryDirectory directory_;
  std::unique_ptr<Storage> storage_;
};

TEST_F(StorageTest, FilesAreForTheirOwnerAlone) {
  ASSERT_TRUE(storage_->make_directory("packs"));
  ASSERT_TRUE(storage_->make_directory("packs"));  // again is no error
  for (const Caching caching : {Caching::kCached, Caching::kDirect}) {
    const std::string name = caching == Caching::kCached ? "packs/a" : "packs/b";
    ASSERT_TRUE(storage_->create(name, caching));
    struct stat status;
    ASSERT_EQ(stat(directory_.file(name).c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 07777, 0600u);
    EXPECT_EQ(storage_->create(name, caching).error().os_error(), EEXIST);
  }
  struct stat status;
  ASSERT_EQ(stat(directory_.file("packs").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 0700u);
}

TEST_F(StorageTest, NoNameLeadsOut) {
  test::TemporaryDirectory outside;
  std::ofstream(outside.file("secret")) << "secret";
  std::filesystem::create_symlink(outside.file("secret"), directory_.file("link"));
  std::filesystem::create_directory_symlink(outside.path(), directory_.file("folder"));
  const std::string above = "../" + std::filesystem::path(outside.path()).filename().string();
  for (const std::string& name : {std::string("link"), std::string("folder/secret"),
                                  above + "/secret", outside.file("secret")}) {
    EXPECT_FALSE(storage_->open(name, Access::kRead, Caching::kCached)) << name;
    EXPECT_FALSE(storage_->open(name, Access::kWrite, Caching::kDirect)) << name;
  }
  EXPECT_FALSE(storage_->create("folder/new", Caching::kCached));
  EXPECT_FALSE(storage_->remove("folder/secret"));
  EXPECT_FALSE(storage_->rename("folder/secret", "mine"));
  EXPECT_FALSE(storage_->list("folder"));
  EXPECT_FALSE(storage_->remove(".."));
  EXPECT_TRUE(std::filesystem::exists(outside.file("secret")));
  // What is no regular file is not opened, and does not hold us up.
  ASSERT_EQ(mkfifo(directory_.file("fifo").c_str(), 0600), 0);
  EXPECT_THAT(storage_->open("fifo", Access::kWrite, Caching::kCached).error().text(),
              HasSubstr("not a regular file"));
  EXPECT_FALSE(storage_->open("fifo", Access::kRead, Caching::kCached));
}

TEST_F(StorageTest, ReadsWritesAndHoles) {
  auto file = storage_->create("f", Caching::kCached).value();
  EXPECT_EQ(file->name(), "f");
  EXPECT_EQ(file->alignment(), 1u);
  ASSERT_TRUE(file->write(5, bytes_of("hello")));
  EXPECT_EQ(file->size().value(), 10u);
  std::array<std::byte, 5> read;
  ASSERT_TRUE(file->read(5, read));
  EXPECT_EQ(content("f"), std::string(5, '\0') + "hello");
  const auto beyond = file->read(6, read);
  ASSERT_FALSE(beyond);
  EXPECT_THAT(beyond.error().text(), HasSubstr(directory_.file("f")));
  ASSERT_TRUE(file->allocate(0, 1 << 20));
  EXPECT_EQ(file->size().value(), 10u);
  ASSERT_TRUE(file->truncate(7));
  EXPECT_EQ(content("f"), std::string(5, '\0') + "he");
  ASSERT_TRUE(file->sync());
  ASSERT_TRUE(storage_->sync_directory("."));
  auto again = storage_->open("f", Access::kRead, Caching::kCached).value();
  EXPECT_FALSE(again->write(0, bytes_of("x")));
}

TEST_F(StorageTest, NamesChangeAndGo) {
  ASSERT_TRUE(storage_->make_directory("tmp"));
  ASSERT_TRUE(storage_->create("tmp/a", Caching::kCached));
  ASSERT_TRUE(storage_->create("b", Caching::kCached));
  ASSERT_TRUE(storage_->rename("tmp/a", "b"));  // replaces
  EXPECT_THAT(storage_->list(".").value(), ElementsAre("b", "tmp"));
  EXPECT_THAT(storage_->list("tmp").value(), ElementsAre());
  EXPECT_TRUE(storage_->exists("b").value());
  EXPECT_FALSE(storage_->exists("tmp/a").value());
  ASSERT_TRUE(storage_->remove("b"));
  EXPECT_THAT(storage_->list(".").value(), ElementsAre("tmp"));
  EXPECT_EQ(storage_->remove("b").error().os_error(), ENOENT);
  EXPECT_GT(storage_->free_bytes().value(), 0u);
}

TEST_F(StorageTest, LocksExcludeBetweenFileObjects) {
  auto one = storage_->create("lock", Caching::kCached).value();
  auto two = storage_->open("lock", Access::kWrite, Caching::kCached).value();
  EXPECT_TRUE(one->try_lock(File::Lock::kShared).value());
  EXPECT_TRUE(two->try_lock(File::Lock::kShared).value());
  EXPECT_FALSE(two->try_lock(File::Lock::kExclusive).value());
  ASSERT_TRUE(one->unlock());
  EXPECT_TRUE(two->try_lock(File::Lock::kExclusive).value());
  EXPECT_FALSE(one->try_lock(File::Lock::kShared).value());
  two.reset();  // ends with the file object
  EXPECT_TRUE(one->try_lock(File::Lock::kExclusive).value());
}

TEST_F(StorageTest, AQueueRunsEveryKindOfTransfer) {
  auto file = storage_->create("f", Caching::kDirect).value();
  auto queue = storage_->make_queue(4).value();
  auto pages = std::make_unique<std::array<Page, 2>>();
  (*pages)[0].bytes.fill(std::byte{1});
  (*pages)[1].bytes.fill(std::byte{2});
  const std::array<iovec, 2> vectors = {
      {{(*pages)[0].bytes.data(), 4096}, {(*pages)[1].bytes.data(), 4096}}};

  // More than the queue has entries.
  std::array<IoQueue::Operation, 8> writes;
  for (size_t i = 0; i < writes.size(); ++i) {
    ASSERT_TRUE(queue->writev(writes[i], *file, vectors, i * 8192));
    EXPECT_TRUE(writes[i].pending);
  }
  ASSERT_TRUE(queue->submit());
  size_t done = 0;
  while (IoQueue::Operation* operation = queue->wait_completion()) {
    EXPECT_FALSE(operation->pending);
    EXPECT_EQ(operation->result, 8192);
    ++done;
  }
  EXPECT_EQ(done, writes.size());
  EXPECT_EQ(queue->in_flight(), 0u);
  EXPECT_EQ(queue->wait_completion(), nullptr);

  IoQueue::Operation operation;
  auto wait = [&] {
    EXPECT_EQ(queue->wait_completion(), &operation);
    return operation.result;
  };
  ASSERT_TRUE(queue->sync(operation, *file));
  EXPECT_EQ(wait(), 0);
  ASSERT_TRUE(queue->allocate(operation, *file, 0, 1 << 20));
  EXPECT_EQ(wait(), 0);
  EXPECT_EQ(file->size().value(), 8 * 8192u);
  ASSERT_TRUE(queue->punch(operation, *file, 0, 4096));
  EXPECT_EQ(wait(), 0);
  auto into = std::make_unique<Page>();
  const iovec target{into->bytes.data(), 4096};
  ASSERT_TRUE(queue->readv(operation, *file, {&target, 1}, 3 * 4096));
  EXPECT_EQ(wait(), 4096);
  EXPECT_EQ(into->bytes, (*pages)[1].bytes);
  ASSERT_TRUE(queue->readv(operation, *file, {&target, 1}, 0));
  EXPECT_EQ(wait(), 4096);
  EXPECT_EQ(into->bytes, Page().bytes);
  // Short at the end of the file, and no error.
  ASSERT_TRUE(queue->readv(operation, *file, {&target, 1}, 8 * 8192));
  EXPECT_EQ(wait(), 0);
}

// What a snapshot maps and unmaps is felt by the guest (snapshot/capture.h).
TEST_F(StorageTest, AQueueHasTheRingOfTheOneBefore) {
  auto rings = [] {
    size_t count = 0;
    for (const auto& fd : std::filesystem::directory_iterator("/proc/self/fd")) {
      std::error_code gone;  // the iterator's own
      count += std::filesystem::read_symlink(fd, gone) == "anon_inode:[io_uring]" ? 1 : 0;
    }
    return count;
  };
  const size_t before = rings();
  auto file = std::move(*storage_->create("a", Caching::kCached));
  auto write = [&](IoQueue& queue, const std::string& text, uint64_t offset) {
    iovec from{const_cast<char*>(text.data()), text.size()};
    IoQueue::Operation operation;
    ASSERT_TRUE(queue.writev(operation, *file, {&from, 1}, offset));
    ASSERT_EQ(queue.wait_completion(), &operation);
    EXPECT_EQ(operation.result, static_cast<int>(text.size()));
  };
  for (uint64_t i = 0; i < 3; ++i) {
    auto large = std::move(*storage_->make_queue(32));
    auto small = std::move(*storage_->make_queue(8));
    write(*large, "large", i * 10);
    write(*small, "small", i * 10 + 5);
    EXPECT_EQ(rings(), before + 2);
  }
  EXPECT_EQ(rings(), before + 2);
  EXPECT_EQ(content("a"), "largesmalllargesmalllargesmall");
  // Another process has its own.
  const pid_t child = ::fork();
  if (child == 0) {
    auto queue = std::move(*storage_->make_queue(8));
    write(*queue, "child", 0);
    ::_exit(rings() == before + 1 ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  write(**storage_->make_queue(32), "after", 5);
  EXPECT_EQ(content("a"), "childafterlargesmalllargesmall");
  storage_.reset();
  EXPECT_EQ(rings(), before);
}

}  // namespace
}  // namespace snapshot
