// Requests in flight: the disk is one end of a socket here, so that a request completes when the
// test, at the other end, lets it.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "devices/virtio/file_disk.h"
#include "tests/support/block_driver.h"

namespace virtio {
namespace {

using test::BlockDriver;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing_support::FakeTransport;
using vmm::Gpa;

constexpr uint8_t kOk = 0, kIoError = 1;
constexpr uint64_t kFlushFeature = 1 << 9;

std::unique_ptr<Block> block_on(base::Fd fd, uint64_t bytes = 1 << 20) {
  auto disk = FileDisk::create(BlockFile::adopt(std::move(fd), bytes, false));
  if (!disk) throw std::runtime_error(disk.error().text());
  return Block::create(std::move(*disk), "disk0", "");
}

// One end is the disk's, the other the test's.
class StreamDisk {
 public:
  enum Kind { kSocket, kPipeToDisk, kPipeFromDisk };

  // A socket goes both ways, but takes requests at sector 0 only, which are never continued.
  explicit StreamDisk(Kind kind = kSocket) {
    int ends[2];
    int made = kind == kSocket ? ::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends)
                               : ::pipe2(ends, O_CLOEXEC);
    if (made < 0) throw std::runtime_error("no socket or pipe");
    disk_ = base::Fd(ends[kind == kPipeFromDisk ? 1 : 0]);
    test_ = base::Fd(ends[kind == kPipeFromDisk ? 0 : 1]);
  }
  std::unique_ptr<Block> block() { return block_on(std::move(disk_)); }
  // Lets reads of as many bytes complete.
  void give(const std::string& bytes) {
    ASSERT_EQ(::write(test_.get(), bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
  }
  // Bytes that were written, "" where none are there within `timeout_ms`.
  std::string take(int timeout_ms = 10000) {
    pollfd entry{test_.get(), POLLIN, 0};
    if (::poll(&entry, 1, timeout_ms) != 1) return "";
    std::string bytes(1 << 20, 0);
    ssize_t n = ::read(test_.get(), bytes.data(), bytes.size());
    bytes.resize(n < 0 ? 0 : static_cast<size_t>(n));
    return bytes;
  }

 private:
  base::Fd disk_, test_;
};

TEST(BlockFlight, RequestsCompleteInAnyOrder) {
  StreamDisk disk;
  BlockDriver driver(disk.block());
  driver.add(0, BlockDriver::kIn, 0, 512);
  driver.add(1, BlockDriver::kIn, 0, 512);
  driver.add(2, BlockDriver::kOut, 0, 512);
  driver.put(BlockDriver::data(2), std::string(512, 'w'));
  driver.kick_and_wait(1);
  // The write overtook the reads.
  EXPECT_EQ(driver.queue().used(0).id, 6u);
  EXPECT_EQ(driver.status(2), kOk);
  EXPECT_EQ(disk.take(), std::string(512, 'w'));
  EXPECT_THAT(driver.block().in_flight(), ElementsAre(0, 3));
  EXPECT_EQ(driver.status(0), BlockDriver::kNoStatus);
  EXPECT_EQ(driver.transport().interrupts(0), 1);

  disk.give(std::string(1024, 'r'));
  driver.wait(3);
  EXPECT_THAT(driver.block().in_flight(), IsEmpty());
  for (unsigned slot : {0u, 1u}) {
    EXPECT_EQ(driver.status(slot), kOk);
    EXPECT_EQ(driver.get(BlockDriver::data(slot), 512), std::string(512, 'r'));
  }
}

TEST(BlockFlight, AShortReadIsContinued) {
  StreamDisk disk(StreamDisk::kPipeToDisk);
  BlockDriver driver(disk.block());
  driver.put_header(BlockDriver::header(0), BlockDriver::kIn, 0);
  Gpa first = BlockDriver::data(0), second = BlockDriver::data(1);
  driver.queue().add(0, {{BlockDriver::header(0), 16}},
                     {{first, 80}, {second, 944}, {BlockDriver::status_at(0), 1}});
  driver.forget_dirty();
  disk.give(std::string(100, 'a'));
  driver.transport().kick(0);
  while (driver.transport().poll(0)) {
  }
  // Neither marked nor given back before it is whole.
  EXPECT_EQ(driver.queue().used_index(), 0);
  EXPECT_THAT(driver.dirty_pages(), IsEmpty());
  disk.give(std::string(400, 'b'));
  disk.give(std::string(524, 'c'));
  driver.wait(1);
  EXPECT_EQ(driver.status(0), kOk);
  EXPECT_EQ(driver.get(first, 80), std::string(80, 'a'));
  EXPECT_EQ(driver.get(second, 944),
            std::string(20, 'a') + std::string(400, 'b') + std::string(524, 'c'));
  EXPECT_THAT(driver.dirty_pages(), ElementsAre(0x41, 0x100, 0x140));
  EXPECT_EQ(driver.block().counters().read_bytes, 1024u);
}

// Several times what a pipe holds, so that no write can be whole.
TEST(BlockFlight, AShortWriteIsContinued) {
  StreamDisk disk(StreamDisk::kPipeFromDisk);
  BlockDriver driver(disk.block());
  std::string data(1 << 20, 0);
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<char>(i * 31 / 7);
  driver.put(BlockDriver::data(0), data);
  driver.add(0, BlockDriver::kOut, 0, static_cast<uint32_t>(data.size()));
  driver.transport().kick(0);
  EXPECT_EQ(driver.queue().used_index(), 0);
  std::string written;
  for (int turn = 0; turn < 10000 && written.size() < data.size(); ++turn) {
    ASSERT_EQ(driver.queue().used_index(), 0) << "after " << written.size() << " bytes";
    written += disk.take(1);
    driver.transport().poll(1);
  }
  driver.wait(1);
  EXPECT_EQ(driver.status(0), kOk);
  EXPECT_TRUE(written == data);
}

TEST(BlockFlight, WritesAreSyncedWhereTheDriverKnowsNoFlush) {
  // A socket cannot be synced: the error shows that it was tried.
  StreamDisk with_flush, without_flush;
  BlockDriver caching(with_flush.block());
  EXPECT_EQ(caching.request(BlockDriver::kOut, 0, 512), kOk);
  EXPECT_EQ(caching.request(BlockDriver::kFlush, 0, 0), kIoError);
  BlockDriver write_through(without_flush.block(), kFlushFeature);
  EXPECT_EQ(write_through.request(BlockDriver::kOut, 0, 512), kIoError);
  EXPECT_EQ(without_flush.take(), std::string(512, '\0'));
  without_flush.give(std::string(512, 'r'));
  EXPECT_EQ(write_through.request(BlockDriver::kIn, 0, 512), kOk);
}

TEST(BlockFlight, AResetWaitsForRequestsAndAnswersNone) {
  StreamDisk disk;
  BlockDriver driver(disk.block());
  driver.add(0, BlockDriver::kIn, 0, 512);
  driver.transport().kick(0);
  driver.forget_dirty();
  EXPECT_FALSE(driver.block().reset());
  while (driver.transport().poll(0)) {
  }
  EXPECT_FALSE(driver.transport().was_reset());

  disk.give(std::string(512, 'r'));
  while (!driver.transport().was_reset()) ASSERT_TRUE(driver.transport().poll(10000));
  // The data is in memory, and marked, but the driver hears nothing of it.
  EXPECT_EQ(driver.get(BlockDriver::data(0), 512), std::string(512, 'r'));
  EXPECT_THAT(driver.dirty_pages(), ElementsAre(0x100));
  EXPECT_EQ(driver.status(0), BlockDriver::kNoStatus);
  EXPECT_EQ(driver.queue().used_index(), 0);
  EXPECT_EQ(driver.transport().interrupts(0), 0);
  EXPECT_EQ(driver.transport().watches(), 0u);
  EXPECT_THAT(driver.block().in_flight(), IsEmpty());

  // Nothing is read any more, and the device can be used again.
  disk.give(std::string(512, 'z'));
  EXPECT_EQ(driver.get(BlockDriver::data(0), 512), std::string(512, 'r'));
  FakeTransport second(driver.block());
  ASSERT_TRUE(second.activate());
  struct {
    uint32_t type = 0, reserved = 0;
    uint64_t sector = 0;
  } header;
  ASSERT_TRUE(second.memory().store(Gpa{0x100000}, header));
  second.driver(0).add(0, {{Gpa{0x100000}, 16}}, {{Gpa{0x101000}, 513}});
  second.kick(0);
  while (second.driver(0).used_index() == 0) ASSERT_TRUE(second.poll(10000));
  EXPECT_EQ(*second.memory().load<char>(Gpa{0x101000 + 511}), 'z');
  EXPECT_EQ(*second.memory().load<char>(Gpa{0x101000 + 512}), kOk);
  EXPECT_TRUE(second.reset_device());
  EXPECT_EQ(second.watches(), 0u);
}

TEST(BlockFlight, AnIdleDeviceIsResetAtOnce) {
  StreamDisk disk;
  BlockDriver driver(disk.block());
  EXPECT_TRUE(driver.block().reset());
  EXPECT_EQ(driver.transport().watches(), 0u);
}

TEST(BlockFlight, AHeadThatIsInFlightStopsTheDevice) {
  StreamDisk disk;
  BlockDriver driver(disk.block());
  driver.add(0, BlockDriver::kIn, 0, 512);
  driver.transport().kick(0);
  driver.add(1, BlockDriver::kIn, 0, 512);
  driver.queue().publish(0);
  driver.transport().kick(0);
  ASSERT_TRUE(driver.transport().failure());
  EXPECT_THAT(*driver.transport().failure(), HasSubstr("descriptor 0 is in use"));
  // What was prepared before the error comes to its end as well.
  disk.give(std::string(1024, 'r'));
  EXPECT_TRUE(driver.transport().reset_device());
  EXPECT_EQ(driver.transport().watches(), 0u);
  EXPECT_EQ(driver.get(BlockDriver::data(1), 512), std::string(512, 'r'));
}

// Chains that are no block request: no header, or no place for the answer.
TEST(BlockHostile, AChainThatIsNoRequestStopsTheDevice) {
  struct Case {
    std::vector<Buffer> readable, writable;
    const char* error;
  };
  Gpa header = BlockDriver::header(0), status = BlockDriver::status_at(0);
  const Case cases[] = {
      {{{header, 15}}, {{status, 1}}, "header of 15 bytes"},
      {{}, {{status, 16}}, "header of 0 bytes"},
      {{{header, 16}}, {}, "without a status byte"},
      {{{header, 16}}, {{status, 0}}, "without a status byte"},
      {{{Gpa{1ull << 40}, 16}}, {{status, 1}}, "not RAM"},
      {{{header, 16}}, {{Gpa{(4 << 20) - 1}, 2}}, "not RAM"},
  };
  for (const Case& bad : cases) {
    StreamDisk disk;
    BlockDriver driver(disk.block());
    driver.put_header(header, BlockDriver::kIn, 0);
    driver.queue().add(0, bad.readable, bad.writable);
    driver.transport().kick(0);
    ASSERT_TRUE(driver.transport().failure()) << bad.error;
    EXPECT_THAT(*driver.transport().failure(), HasSubstr(bad.error));
    EXPECT_EQ(driver.queue().used_index(), 0);
    EXPECT_TRUE(driver.transport().reset_device());
  }
}

TEST(BlockFailure, AFullDiskIsAnError) {
  BlockDriver driver(block_on(base::Fd(::open("/dev/full", O_RDWR | O_CLOEXEC))));
  EXPECT_EQ(driver.request(BlockDriver::kOut, 0, 4096), kIoError);
  EXPECT_EQ(driver.request_ranges(BlockDriver::kWriteZeroes, {{0, 8, 0}}), kIoError);
  EXPECT_EQ(driver.block().counters().errors, 2u);
  EXPECT_EQ(driver.block().counters().written_bytes, 0u);
  EXPECT_EQ(driver.request(BlockDriver::kIn, 0, 4096), kOk);
}

TEST(BlockFailure, AFailedReadIsMarkedDirtyAllTheSame) {
  BlockDriver driver(block_on(base::Fd(::open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC))));
  driver.add(0, BlockDriver::kIn, 0, 4096);
  driver.forget_dirty();
  driver.kick_and_wait(1);
  EXPECT_EQ(driver.status(0), kIoError);
  EXPECT_THAT(driver.dirty_pages(), ElementsAre(0x41, 0x100));
  EXPECT_EQ(driver.queue().used(0).length, 0u);
}

// A memfd has holes but no FALLOC_FL_ZERO_RANGE: without leave to unmap, zeroes are written.
TEST(BlockZeroes, AreWrittenWhereTheFileKnowsNoBetter) {
  constexpr uint64_t kSectors = 3 << 11;  // 3 MiB: several writes
  base::Fd fd(::memfd_create("disk", MFD_CLOEXEC));
  base::Fd same(::dup(fd.get()));
  std::string content(kSectors * 512, 'x');
  ASSERT_TRUE(base::write_exact(fd.get(), content.data(), content.size(), 0));
  struct stat before, after;
  ASSERT_EQ(::fstat(same.get(), &before), 0);

  BlockDriver driver(block_on(std::move(fd), kSectors * 512));
  EXPECT_EQ(driver.request_ranges(BlockDriver::kWriteZeroes,
                                  {{1, kSectors - 3, 0}, {kSectors - 1, 1, 0}}),
            kOk);
  content.replace(512, (kSectors - 3) * 512, (kSectors - 3) * 512, '\0');
  content.replace((kSectors - 1) * 512, 512, 512, '\0');
  std::string read(content.size(), 0);
  ASSERT_TRUE(base::read_exact(same.get(), read.data(), read.size(), 0));
  EXPECT_TRUE(read == content);
  ASSERT_EQ(::fstat(same.get(), &after), 0);
  EXPECT_EQ(after.st_blocks, before.st_blocks);

  EXPECT_EQ(driver.request_ranges(BlockDriver::kWriteZeroes, {{0, 2048, 1}}), kOk);
  ASSERT_EQ(::fstat(same.get(), &after), 0);
  EXPECT_EQ(after.st_blocks, before.st_blocks - 2048);
  content.replace(0, 512, 512, '\0');
  ASSERT_TRUE(base::read_exact(same.get(), read.data(), read.size(), 0));
  EXPECT_TRUE(read == content);
}

}  // namespace
}  // namespace virtio
