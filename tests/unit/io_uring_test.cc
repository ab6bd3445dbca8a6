#include "vmm/base/io_uring.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <string>
#include <thread>
#include <vector>

namespace base {
namespace {

using ::testing::HasSubstr;

struct Pipe {
  Pipe() {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) < 0) throw std::runtime_error("no pipe");
    read = Fd(ends[0]);
    write = Fd(ends[1]);
  }
  Fd read, write;
};

Fd memory_file(const std::string& content) {
  Fd fd(::memfd_create("test", MFD_CLOEXEC));
  if (!write_exact(fd.get(), content.data(), content.size(), 0)) throw std::runtime_error("memfd");
  return fd;
}

// A read of one block into memory of its own.
struct Read : IoUring::Operation {
  char data[8] = {};
  iovec vector{data, sizeof data};
  std::string text() const { return {data, sizeof data}; }
};

bool wait_for_event(IoUring& ring) {
  pollfd entry{ring.event().fd(), POLLIN, 0};
  return ::poll(&entry, 1, 10000) == 1;
}

// The next operation that completes, waited for.
IoUring::Operation* wait(IoUring& ring) {
  while (true) {
    if (auto* operation = ring.next_completion()) return operation;
    if (!wait_for_event(ring)) return nullptr;
    ring.event().consume();
  }
}

TEST(IoUring, ReadsAndWritesSyncsAndPunches) {
  auto ring = std::move(*IoUring::create(4));
  Fd file = memory_file("0123456789abcdef");
  char first[3], second[5];
  iovec into[] = {{first, sizeof first}, {second, sizeof second}};
  IoUring::Operation operation;
  ASSERT_TRUE(ring->prepare_readv(operation, file.get(), into, 4));
  EXPECT_EQ(ring->in_flight(), 1u);
  EXPECT_TRUE(operation.pending());
  ASSERT_TRUE(ring->submit());
  ASSERT_EQ(wait(*ring), &operation);
  EXPECT_EQ(operation.result(), 8);
  EXPECT_EQ(std::string(first, 3) + std::string(second, 5), "456789ab");
  EXPECT_EQ(ring->in_flight(), 0u);
  EXPECT_FALSE(operation.pending());

  iovec from[] = {{first, 3}};
  ASSERT_TRUE(ring->prepare_writev(operation, file.get(), from, 0));
  ASSERT_TRUE(ring->submit());
  ASSERT_EQ(wait(*ring), &operation);
  EXPECT_EQ(operation.result(), 3);
  ASSERT_TRUE(ring->prepare_fdatasync(operation, file.get()));
  ASSERT_TRUE(ring->submit());
  ASSERT_EQ(wait(*ring), &operation);
  EXPECT_EQ(operation.result(), 0);
  ASSERT_TRUE(ring->prepare_fallocate(operation, file.get(),
                                      FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 1, 5));
  ASSERT_TRUE(ring->submit());
  ASSERT_EQ(wait(*ring), &operation);
  EXPECT_EQ(operation.result(), 0);
  char content[16];
  ASSERT_TRUE(read_exact(file.get(), content, sizeof content, 0));
  EXPECT_EQ(std::string(content, 16), std::string("4\0\0\0\0\0"
                                                  "6789abcdef",
                                                  16));
}

TEST(IoUring, AnErrorIsANegativeResult) {
  auto ring = std::move(*IoUring::create(4));
  Fd null(::open("/dev/full", O_RDWR | O_CLOEXEC));
  char byte = 0;
  iovec vector{&byte, 1};
  IoUring::Operation operation;
  ASSERT_TRUE(ring->prepare_writev(operation, null.get(), {&vector, 1}, 0));
  ASSERT_TRUE(ring->submit());
  ASSERT_EQ(wait(*ring), &operation);
  EXPECT_EQ(operation.result(), -ENOSPC);
}

TEST(IoUring, CompletesInAnyOrder) {
  auto ring = std::move(*IoUring::create(4));
  Pipe slow;
  Fd file = memory_file("01234567");
  Read from_pipe, from_file;
  ASSERT_TRUE(ring->prepare_readv(from_pipe, slow.read.get(), {&from_pipe.vector, 1}, 0));
  ASSERT_TRUE(ring->prepare_readv(from_file, file.get(), {&from_file.vector, 1}, 0));
  ASSERT_TRUE(ring->submit());
  ASSERT_EQ(wait(*ring), &from_file);
  EXPECT_EQ(ring->next_completion(), nullptr);
  EXPECT_TRUE(from_pipe.pending());
  ASSERT_EQ(::write(slow.write.get(), "abcdefgh", 8), 8);
  ASSERT_EQ(wait(*ring), &from_pipe);
  EXPECT_EQ(from_pipe.text(), "abcdefgh");
  EXPECT_EQ(from_file.text(), "01234567");
}

TEST(IoUring, TakesMoreThanItsRingsHold) {
  auto ring = std::move(*IoUring::create(2));
  std::string content;
  for (int i = 0; i < 64; ++i) content += std::string(8, static_cast<char>('0' + i));
  Fd file = memory_file(content);
  std::vector<std::unique_ptr<Read>> reads;
  for (unsigned i = 0; i < 64; ++i) {
    auto& read = *reads.emplace_back(std::make_unique<Read>());
    ASSERT_TRUE(ring->prepare_readv(read, file.get(), {&read.vector, 1}, 8 * i));
  }
  ASSERT_TRUE(ring->submit());
  EXPECT_EQ(ring->in_flight(), 64u);
  for (int i = 0; i < 64; ++i) {
    auto* operation = wait(*ring);
    ASSERT_NE(operation, nullptr) << "after " << i;
    ASSERT_TRUE(ring->submit());
  }
  for (int i = 0; i < 64; ++i) {
    EXPECT_EQ(reads[i]->result(), 8);
    EXPECT_EQ(reads[i]->text(), content.substr(8 * i, 8));
  }
  EXPECT_EQ(ring->in_flight(), 0u);
}

TEST(IoUring, ItsEndWaitsForWhatIsInFlight) {
  auto ring = std::move(*IoUring::create(4));
  Pipe slow;
  Read read, never_submitted;
  Fd file = memory_file("01234567");
  ASSERT_TRUE(ring->prepare_readv(read, slow.read.get(), {&read.vector, 1}, 0));
  ASSERT_TRUE(ring->submit());
  ASSERT_TRUE(ring->prepare_readv(never_submitted, file.get(), {&never_submitted.vector, 1}, 0));
  std::thread writer([&] { ASSERT_EQ(::write(slow.write.get(), "abcdefgh", 8), 8); });
  ring.reset();
  EXPECT_FALSE(read.pending());
  EXPECT_EQ(read.text(), "abcdefgh");
  EXPECT_FALSE(never_submitted.pending());
  writer.join();
}

// In a process of its own: a filter stays for good.
[[noreturn]] void create_where_forbidden(int os_error) {
  sock_filter program[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_io_uring_setup, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | static_cast<unsigned>(os_error)),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  sock_fprog filter{std::size(program), program};
  ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter);
  auto ring = IoUring::create(4);
  std::string text = ring ? "created" : ring.error().text();
  (void)!::write(STDERR_FILENO, text.data(), text.size());
  ::_exit(0);
}

TEST(IoUringDeathTest, SaysWhatToDoWhereItIsForbidden) {
  EXPECT_EXIT(create_where_forbidden(EPERM), ::testing::ExitedWithCode(0),
              "io_uring is not available .*kernel.io_uring_disabled.*: Operation not permitted");
  EXPECT_EXIT(create_where_forbidden(ENOSYS), ::testing::ExitedWithCode(0),
              "io_uring is not available .*Linux 5.6.*: Function not implemented");
}

}  // namespace
}  // namespace base
