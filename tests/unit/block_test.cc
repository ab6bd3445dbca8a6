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

constexpr uint8_t kOk = 0, kIoError = 1, kUnsupported = 2;
constexpr uint64_t kDiskSectors = 512;

std::string pattern(size_t bytes, unsigned seed) {
  std::string text(bytes, 0);
  for (size_t i = 0; i < bytes; ++i) {
    text[i] = static_cast<char>((i * 7 + i / 512 * 13 + seed) & 0xFF);
  }
  return text;
}

std::unique_ptr<Block> open_block(const Block::Options& options) {
  auto block = Block::create(options);
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

}  // namespace
}  // namespace virtio
