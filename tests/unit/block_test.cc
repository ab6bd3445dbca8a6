#include "devices/virtio/block.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "tests/support/block_driver.h"
#include "tests/support/temporary_file.h"
#include "vmm/base/endian.h"

namespace virtio {
namespace {

using test::BlockDriver;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using vmm::Gpa;

constexpr uint8_t kOk = 0, kIoError = 1, kUnsupported = 2;
constexpr uint64_t kDiskSectors = 512;

std::string pattern(size_t bytes, unsigned seed) {
  std::string text(bytes, 0);
  for (size_t i = 0; i < bytes; ++i) {
    text[i] = static_cast<char>((i * 7 + i / 512 * 13 + seed) & 0xFF);
  }
  return text;
}

std::unique_ptr<Block> open_block(Block::Options options) {
  auto block = Block::create(std::move(options));
  if (!block) throw std::runtime_error(block.error().text());
  return std::move(*block);
}

// Every test runs with direct and with buffered access; where the file system of the temporary
// folder knows no direct access, both are buffered.
class BlockTest : public ::testing::TestWithParam<BlockFile::Access> {
 protected:
  Block::Options options(bool read_only = false) const {
    return {.id = "disk0",
            .path = file_.path(),
            .read_only = read_only,
            .serial = "",
            .access = GetParam()};
  }
  BlockDriver make(bool read_only = false, uint64_t without_features = 0) const {
    return BlockDriver(open_block(options(read_only)), without_features);
  }
  std::string on_disk(uint64_t sector, uint64_t bytes) const {
    return file_.read().substr(sector * 512, bytes);
  }

  std::string content_ = pattern(kDiskSectors * 512, 1);
  test::TemporaryFile file_{content_};
};

INSTANTIATE_TEST_SUITE_P(Access, BlockTest,
                         ::testing::Values(BlockFile::Access::kDirect,
                                           BlockFile::Access::kBuffered),
                         [](const auto& param_info) {
                           return param_info.param == BlockFile::Access::kDirect ? "Direct"
                                                                                 : "Buffered";
                         });

TEST_P(BlockTest, ReadsWhatIsOnTheDiskAndMarksItDirty) {
  auto driver = make();
  driver.add(0, BlockDriver::kIn, 9, 3 * 4096);
  driver.forget_dirty();
  driver.kick_and_wait(1);
  EXPECT_EQ(driver.status(0), kOk);
  EXPECT_EQ(driver.get(BlockDriver::data(0), 3 * 4096), content_.substr(9 * 512, 3 * 4096));
  EXPECT_EQ(driver.queue().used(0).length, 3 * 4096 + 1u);
  EXPECT_EQ(driver.transport().interrupts(0), 1);
  EXPECT_THAT(driver.dirty_pages(), ElementsAre(0x41, 0x100, 0x101, 0x102));
  EXPECT_EQ(driver.block().counters().reads, 1u);
  EXPECT_EQ(driver.block().counters().read_bytes, 3 * 4096u);
}

TEST_P(BlockTest, WritesToTheDiskAndMarksOnlyTheStatusDirty) {
  auto driver = make();
  std::string data = pattern(8192, 77);
  driver.put(BlockDriver::data(0), data);
  driver.add(0, BlockDriver::kOut, 3, 8192);
  driver.forget_dirty();
  driver.kick_and_wait(1);
  EXPECT_EQ(driver.status(0), kOk);
  EXPECT_EQ(driver.queue().used(0).length, 1u);
  EXPECT_EQ(file_.read(), content_.substr(0, 3 * 512) + data + content_.substr(3 * 512 + 8192));
  EXPECT_THAT(driver.dirty_pages(), ElementsAre(0x41));
  EXPECT_EQ(driver.block().counters().writes, 1u);
  EXPECT_EQ(driver.block().counters().written_bytes, 8192u);
}

TEST_P(BlockTest, ConfigurationTellsSizeAndLimits) {
  auto block = open_block(options());
  std::array<uint8_t, 64> config{};
  block->read_config(0, config);
  EXPECT_EQ(base::load_le<uint64_t>(config), kDiskSectors);
  EXPECT_EQ(base::load_le<uint32_t>(config, 12), 254u);  // seg_max
  EXPECT_EQ(base::load_le<uint32_t>(config, 20), 512u);  // blk_size
  EXPECT_EQ(config[24], 3);                              // physical blocks of 4 KiB
  EXPECT_EQ(base::load_le<uint32_t>(config, 36), kMaxRangeSectors);
  EXPECT_EQ(base::load_le<uint32_t>(config, 40), kMaxBlockRanges);
  EXPECT_EQ(base::load_le<uint32_t>(config, 48), kMaxRangeSectors);
  std::array<uint8_t, 8> outside;
  outside.fill(0xAA);
  block->read_config(0xFFFFFFFC, outside);
  EXPECT_THAT(outside, ::testing::Each(0));
}

TEST_P(BlockTest, AReadOnlyDiskOffersNothingThatWrites) {
  constexpr uint64_t kRo = 1 << 5, kDiscard = 1 << 13, kWriteZeroes = 1 << 14;
  EXPECT_EQ(open_block(options())->features() & (kRo | kDiscard | kWriteZeroes),
            kDiscard | kWriteZeroes);
  EXPECT_EQ(open_block(options(true))->features() & (kRo | kDiscard | kWriteZeroes), kRo);
  auto driver = make(true);
  EXPECT_EQ(driver.request(BlockDriver::kOut, 0, 512), kIoError);
  EXPECT_EQ(driver.request_ranges(BlockDriver::kDiscard, {{0, 8, 0}}), kUnsupported);
  EXPECT_EQ(driver.request_ranges(BlockDriver::kWriteZeroes, {{0, 8, 0}}), kUnsupported);
  EXPECT_EQ(driver.request(BlockDriver::kFlush, 0, 0), kOk);
  EXPECT_EQ(driver.request(BlockDriver::kIn, 0, 512), kOk);
  EXPECT_EQ(driver.get(BlockDriver::data(0), 512), content_.substr(0, 512));
  EXPECT_EQ(file_.read(), content_);
  EXPECT_EQ(driver.block().counters().errors, 3u);
}

TEST_P(BlockTest, FlushSucceeds) {
  auto driver = make();
  EXPECT_EQ(driver.request(BlockDriver::kFlush, 0, 0), kOk);
  EXPECT_EQ(driver.block().counters().flushes, 1u);
}

TEST_P(BlockTest, GivesItsSerialNumber) {
  auto driver = make();
  EXPECT_EQ(driver.request(BlockDriver::kGetId, 0, 20), kOk);
  EXPECT_EQ(driver.get(BlockDriver::data(0), 20), std::string("disk0") + std::string(15, '\0'));
  EXPECT_EQ(driver.queue().used(0).length, 21u);
  // A longer buffer keeps its rest, a shorter one its end.
  driver.put(BlockDriver::data(0), std::string(32, 'x'));
  EXPECT_EQ(driver.request(BlockDriver::kGetId, 0, 32), kOk);
  EXPECT_EQ(driver.get(BlockDriver::data(0) + 20, 12), std::string(12, 'x'));
  EXPECT_EQ(driver.queue().used(1).length, 20u);
}

TEST_P(BlockTest, TheSerialNumberEndsAfterTwentyBytes) {
  auto with_serial = options();
  with_serial.serial = "0123456789abcdefghijklmnop";
  BlockDriver driver(open_block(std::move(with_serial)));
  EXPECT_EQ(driver.request(BlockDriver::kGetId, 0, 20), kOk);
  EXPECT_EQ(driver.get(BlockDriver::data(0), 20), "0123456789abcdefghij");
}

TEST_P(BlockTest, DiscardGivesSpaceBack) {
  auto driver = make();
  if (!driver.block().disk().can_discard()) GTEST_SKIP() << "the file system cannot punch holes";
  EXPECT_EQ(driver.request_ranges(BlockDriver::kDiscard, {{8, 16, 0}, {64, 8, 0}}), kOk);
  std::string expected = content_;
  expected.replace(8 * 512, 16 * 512, std::string(16 * 512, '\0'));
  expected.replace(64 * 512, 8 * 512, std::string(8 * 512, '\0'));
  EXPECT_EQ(file_.read(), expected);
  EXPECT_EQ(driver.block().counters().discards, 1u);
}

TEST_P(BlockTest, WriteZeroesWritesZeroes) {
  auto driver = make();
  EXPECT_EQ(driver.request_ranges(BlockDriver::kWriteZeroes, {{1, 3, 0}, {0, 0, 0}, {100, 9, 1}}),
            kOk);
  std::string expected = content_;
  expected.replace(512, 3 * 512, std::string(3 * 512, '\0'));
  expected.replace(100 * 512, 9 * 512, std::string(9 * 512, '\0'));
  EXPECT_EQ(file_.read(), expected);
  EXPECT_EQ(driver.block().counters().write_zeroes, 1u);
}

TEST_P(BlockTest, RangesAreChecked) {
  auto driver = make();
  auto discard = [&](uint64_t sector, uint32_t sectors, uint32_t flags) {
    return driver.request_ranges(BlockDriver::kDiscard, {{sector, sectors, flags}});
  };
  auto zero = [&](uint64_t sector, uint32_t sectors, uint32_t flags) {
    return driver.request_ranges(BlockDriver::kWriteZeroes, {{sector, sectors, flags}});
  };
  EXPECT_EQ(discard(0, 8, 1), kUnsupported);  // unmap means nothing for a discard
  EXPECT_EQ(discard(0, 8, 2), kUnsupported);
  EXPECT_EQ(zero(0, 8, 2), kUnsupported);
  EXPECT_EQ(zero(kDiskSectors, 1, 0), kIoError);
  EXPECT_EQ(zero(kDiskSectors - 1, 2, 0), kIoError);
  EXPECT_EQ(zero(UINT64_MAX, 2, 0), kIoError);
  EXPECT_EQ(zero(1ull << 55, 2, 0), kIoError);
  EXPECT_EQ(zero(0, kMaxRangeSectors + 1, 0), kIoError);
  EXPECT_EQ(driver.request(BlockDriver::kDiscard, 0, 0), kIoError);   // none
  EXPECT_EQ(driver.request(BlockDriver::kDiscard, 0, 15), kIoError);  // not whole
  EXPECT_EQ(driver.request(BlockDriver::kDiscard, 0, 16 * (kMaxBlockRanges + 1)), kIoError);
  // A good range before a bad one is left alone as well.
  EXPECT_EQ(driver.request_ranges(BlockDriver::kWriteZeroes, {{0, 8, 0}, {kDiskSectors, 1, 0}}),
            kIoError);
  EXPECT_EQ(file_.read(), content_);
}

TEST_P(BlockTest, UnknownRequestsAreUnsupported) {
  auto driver = make();
  for (uint32_t type : {2u, 3u, 5u, 9u, 10u, 14u, 99u, 0xFFFFFFFFu}) {
    EXPECT_EQ(driver.request(type, 0, 512), kUnsupported) << type;
  }
}

TEST_P(BlockTest, SectorsOutsideOfTheDiskAreErrors) {
  auto driver = make();
  for (uint64_t sector :
       std::initializer_list<uint64_t>{kDiskSectors - 7, kDiskSectors, 1ull << 55, (1ull << 55) + 8,
                                       UINT64_MAX, UINT64_MAX - 7}) {
    driver.forget_dirty();
    EXPECT_EQ(driver.request(BlockDriver::kIn, sector, 8 * 512), kIoError) << sector;
    // Header and status, as the driver wrote them: no data.
    EXPECT_THAT(driver.dirty_pages(), ElementsAre(0x40, 0x41));
    EXPECT_EQ(driver.request(BlockDriver::kOut, sector, 8 * 512), kIoError) << sector;
  }
  EXPECT_EQ(driver.request(BlockDriver::kIn, kDiskSectors - 8, 8 * 512), kOk);
  EXPECT_EQ(file_.read(), content_);
}

TEST_P(BlockTest, DataIsInWholeSectors) {
  auto driver = make();
  EXPECT_EQ(driver.request(BlockDriver::kIn, 0, 513), kIoError);
  EXPECT_EQ(driver.request(BlockDriver::kOut, 0, 511), kIoError);
  EXPECT_EQ(driver.request(BlockDriver::kIn, 0, 0), kOk);
  EXPECT_EQ(driver.request(BlockDriver::kOut, kDiskSectors, 0), kOk);
  EXPECT_EQ(file_.read(), content_);
}

TEST_P(BlockTest, TheHeaderMayBeSpreadOverOneByteDescriptors) {
  auto driver = make();
  driver.put_header(BlockDriver::header(0), BlockDriver::kOut, 5);
  driver.put(BlockDriver::data(0), pattern(512, 5));
  std::vector<Buffer> out;
  for (unsigned i = 0; i < 16; ++i) out.push_back({BlockDriver::header(0) + i, 1});
  out.push_back({BlockDriver::data(0), 512});
  driver.queue().add(0, out, {{BlockDriver::status_at(0), 1}});
  driver.kick_and_wait(1);
  EXPECT_EQ(driver.status(0), kOk);
  EXPECT_EQ(on_disk(5, 512), pattern(512, 5));
}

TEST_P(BlockTest, HeaderAndDataMayShareADescriptor) {
  auto driver = make();
  driver.put_header(BlockDriver::data(0), BlockDriver::kOut, 7);
  driver.put(BlockDriver::data(0) + 16, pattern(1024, 9));
  driver.queue().add(0, {{BlockDriver::data(0), 16 + 1024}}, {{BlockDriver::status_at(0), 1}});
  driver.kick_and_wait(1);
  EXPECT_EQ(driver.status(0), kOk);
  EXPECT_EQ(on_disk(6, 4 * 512),
            content_.substr(6 * 512, 512) + pattern(1024, 9) + content_.substr(9 * 512, 512));
}

TEST_P(BlockTest, DataAndStatusMayShareADescriptor) {
  auto driver = make();
  driver.put_header(BlockDriver::header(0), BlockDriver::kIn, 2);
  Gpa data = BlockDriver::data(0) + 3;
  driver.put(data, std::string(1026, 'x'));
  driver.queue().add(0, {{BlockDriver::header(0), 16}}, {{data, 1025}});
  driver.kick_and_wait(1);
  EXPECT_EQ(driver.get(data, 1026), content_.substr(2 * 512, 1024) + '\0' + 'x');
  EXPECT_EQ(driver.queue().used(0).length, 1025u);
}

TEST_P(BlockTest, DataMayBeInManyPiecesOfAnySize) {
  auto driver = make();
  driver.put_header(BlockDriver::header(0), BlockDriver::kIn, 11);
  // 40 pieces, odd sizes and addresses, one empty, each in a page of its own; 24 sectors in all.
  std::vector<Buffer> in;
  uint32_t left = 24 * 512;
  for (unsigned i = 0; i < 40; ++i) {
    uint32_t bytes = i == 39 ? left : i == 17 ? 0 : 101 + 7 * i;
    in.push_back({BlockDriver::data(0) + i * 4096 + i, bytes});
    left -= bytes;
  }
  in.push_back({BlockDriver::status_at(0), 1});
  driver.queue().add(0, {{BlockDriver::header(0), 16}}, in);
  driver.forget_dirty();
  driver.kick_and_wait(1);
  EXPECT_EQ(driver.status(0), kOk);
  std::string read;
  std::vector<uint64_t> pages{0x41};
  for (unsigned i = 0; i < 40; ++i) {
    read += driver.get(in[i].gpa, in[i].length);
    if (in[i].length > 0) pages.push_back(in[i].gpa.gfn().value);
  }
  EXPECT_EQ(read, content_.substr(11 * 512, 24 * 512));
  EXPECT_EQ(driver.dirty_pages(), pages);
}

// More than one bounce buffer holds, at an address no direct access takes.
TEST_P(BlockTest, UnalignedMemoryIsNoObstacle) {
  auto driver = make();
  constexpr uint32_t kBytes = 300 * 512;
  std::string data = pattern(kBytes, 42);
  driver.put(BlockDriver::data(0) + 1, data);
  driver.put_header(BlockDriver::header(0), BlockDriver::kOut, 50);
  driver.queue().add(0, {{BlockDriver::header(0), 16}, {BlockDriver::data(0) + 1, kBytes}},
                     {{BlockDriver::status_at(0), 1}});
  driver.kick_and_wait(1);
  EXPECT_EQ(driver.status(0), kOk);
  EXPECT_EQ(file_.read(), content_.substr(0, 50 * 512) + data + content_.substr(350 * 512));

  driver.put_header(BlockDriver::header(1), BlockDriver::kIn, 50);
  driver.queue().add(4, {{BlockDriver::header(1), 16}},
                     {{BlockDriver::data(1) + 3, kBytes}, {BlockDriver::status_at(1), 1}});
  driver.kick_and_wait(2);
  EXPECT_EQ(driver.status(1), kOk);
  EXPECT_EQ(driver.get(BlockDriver::data(1) + 3, kBytes), data);
}

TEST_P(BlockTest, ManyRequestsAtOnce) {
  auto driver = make();
  constexpr unsigned kRequests = 40;
  std::string expected = content_;
  for (unsigned i = 0; i < kRequests; ++i) {
    driver.put_header(BlockDriver::header(i), i % 2 ? BlockDriver::kIn : BlockDriver::kOut, 8 * i);
    Buffer data{Gpa{0x100000 + 4096ull * i}, 4096};
    driver.put(data.gpa, pattern(4096, 200 + i));
    if (i % 2 == 0) expected.replace(8 * 512 * i, 4096, pattern(4096, 200 + i));
    std::vector<Buffer> out{{BlockDriver::header(i), 16}}, in;
    (i % 2 ? in : out).push_back(data);
    in.push_back({BlockDriver::status_at(i), 1});
    driver.queue().add(static_cast<uint16_t>(3 * i), out, in);
  }
  driver.kick_and_wait(kRequests);
  for (unsigned i = 0; i < kRequests; ++i) {
    EXPECT_EQ(driver.status(i), kOk) << i;
    if (i % 2) {
      EXPECT_EQ(driver.get(Gpa{0x100000 + 4096ull * i}, 4096), content_.substr(8 * 512 * i, 4096));
    }
  }
  EXPECT_EQ(file_.read(), expected);
  EXPECT_THAT(driver.block().in_flight(), IsEmpty());
}

// A queue's worth of requests ends a turn of the device; what comes after it needs no kick.
TEST_P(BlockTest, LooksAgainAfterAFullQueue) {
  auto driver = make();
  driver.add(0, BlockDriver::kGetId, 0, 0);  // answered at once, so it may be published again
  for (int i = 1; i < 128; ++i) driver.queue().publish(0);
  driver.transport().kick(0);
  EXPECT_EQ(driver.queue().used_index(), 128);
  driver.queue().publish(0);
  driver.wait(129);
}

TEST_P(BlockTest, AFileThatBecameShorterGivesErrors) {
  auto driver = make();
  ASSERT_EQ(::truncate(file_.path().c_str(), 8 * 512), 0);
  EXPECT_EQ(driver.request(BlockDriver::kIn, 16, 512), kIoError);
  EXPECT_EQ(driver.request(BlockDriver::kIn, 4, 8 * 512), kIoError);  // half of it is there
  EXPECT_EQ(driver.request(BlockDriver::kIn, 0, 8 * 512), kOk);
  EXPECT_EQ(driver.block().counters().errors, 2u);
  EXPECT_EQ(driver.block().counters().reads, 1u);
}

// The host allows the file no byte past the 16th sector: the write is short, its rest fails.
TEST_P(BlockTest, AWriteThatFailsHalfWayIsAnError) {
  auto driver = make();
  ::signal(SIGXFSZ, SIG_IGN);
  rlimit before;
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  rlimit limit{16 * 512, before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &limit), 0);
  driver.put(BlockDriver::data(0), pattern(4096, 3));
  uint8_t status = driver.request(BlockDriver::kOut, 12, 4096);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  EXPECT_EQ(status, kIoError);
  EXPECT_EQ(on_disk(16, 4096), content_.substr(16 * 512, 4096));
  EXPECT_EQ(driver.request(BlockDriver::kOut, 12, 4096), kOk);
  EXPECT_EQ(on_disk(12, 4096), pattern(4096, 3));
}

TEST_P(BlockTest, IsLockedWhileItExists) {
  auto block = open_block(options());
  auto second = Block::create(options());
  ASSERT_FALSE(second);
  EXPECT_THAT(second.error().text(), HasSubstr("is in use by another machine"));
}

}  // namespace
}  // namespace virtio
