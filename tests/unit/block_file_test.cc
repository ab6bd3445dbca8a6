#include "devices/virtio/block_file.h"

#include <gmock/gmock.h>
#include <sys/stat.h>

#include <chrono>
#include <optional>
#include <thread>

#include "tests/support/temporary_file.h"

namespace virtio {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using Access = BlockFile::Access;

std::string error(const std::string& path, bool read_only = false) {
  auto file = BlockFile::open({.path = path, .read_only = read_only});
  return file ? "" : file.error().text();
}

TEST(BlockFile, KnowsItsSizeAndWhatItCan) {
  test::TemporaryFile image(std::string(3 * 512, 'x'));
  auto file = std::move(*BlockFile::open({.path = image.path()}));
  EXPECT_EQ(file.size(), 1536u);
  EXPECT_FALSE(file.read_only());
  // The question whether space can be given back changes nothing.
  EXPECT_EQ(image.read(), std::string(3 * 512, 'x'));
}

TEST(BlockFile, AReadOnlyOneCannotBeWritten) {
  test::TemporaryFile image(std::string(512, 'x'));
  auto file = std::move(*BlockFile::open({.path = image.path(), .read_only = true}));
  EXPECT_TRUE(file.read_only());
  EXPECT_FALSE(file.can_punch());
  EXPECT_FALSE(base::write_exact(file.fd(), "y", 1, 0));
}

TEST(BlockFile, BufferedAccessIsGivenWhereAskedForAndToReaders) {
  test::TemporaryFile image(std::string(4096, 'x'));
  auto direct = [&](bool read_only, Access access) {
    return BlockFile::open({image.path(), read_only, access})->direct();
  };
  EXPECT_FALSE(direct(false, Access::kBuffered));
  EXPECT_FALSE(direct(true, Access::kAutomatic));
  // Whether the file system can is its own affair; both answers are to be the same.
  EXPECT_EQ(direct(false, Access::kAutomatic), direct(true, Access::kDirect));
}

TEST(BlockFile, IsLockedAgainstOtherMachines) {
  test::TemporaryFile image(std::string(512, 'x'));
  {
    auto writer = BlockFile::open({.path = image.path()});
    ASSERT_TRUE(writer);
    EXPECT_THAT(error(image.path()),
                AllOf(HasSubstr(image.path()), HasSubstr("is in use by another machine")));
    EXPECT_THAT(error(image.path(), true), HasSubstr("is in use by another machine"));
  }
  auto reader = BlockFile::open({.path = image.path(), .read_only = true});
  ASSERT_TRUE(reader);
  EXPECT_EQ(error(image.path(), true), "");
  EXPECT_THAT(error(image.path()), HasSubstr("is in use by another machine"));
}

TEST(BlockFile, OneThatIsBeingLetGoIsWaitedFor) {
  test::TemporaryFile image(std::string(512, 'x'));
  std::optional<BlockFile> first = std::move(*BlockFile::open({.path = image.path()}));
  std::jthread last_breath([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    first.reset();
  });
  EXPECT_EQ(error(image.path()), "");
}

TEST(BlockFile, SaysWhatIsWrongWithThePath) {
  EXPECT_THAT(error("/no/such/disk"),
              AllOf(HasSubstr("/no/such/disk"), HasSubstr("No such file or directory")));
  EXPECT_THAT(error("/"), HasSubstr("is a directory"));
  EXPECT_THAT(error("/dev/null"), HasSubstr("neither a regular file nor a block device"));
}

TEST(BlockFile, DoesNotWaitForAFifo) {
  test::TemporaryFile name;
  std::string fifo = name.path() + ".fifo";
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  EXPECT_THAT(error(fifo, true), HasSubstr("neither a regular file nor a block device"));
  ::unlink(fifo.c_str());
}

TEST(BlockFile, SaysThatADiskIsReadOnly) {
  // sysfs refuses to open such a file for writing even to root.
  const std::string path = "/sys/kernel/notes";
  if (::access(path.c_str(), R_OK) != 0) GTEST_SKIP() << "no " << path << " on this host";
  EXPECT_THAT(error(path), HasSubstr(path + " is read-only: add ,ro"));
}

TEST(BlockFile, RefusesWhatIsNoRawImage) {
  test::TemporaryFile empty;
  EXPECT_THAT(error(empty.path()), HasSubstr("is empty"));
  test::TemporaryFile odd(std::string(1000, 'x'));
  EXPECT_THAT(error(odd.path()), HasSubstr("1000 bytes, not a multiple of 512"));
  auto error_of_one = [](size_t offset, const std::string& magic, size_t size = 1024) {
    std::string content(size, '\0');
    content.replace(offset, magic.size(), magic);
    test::TemporaryFile file(content);
    EXPECT_TRUE(size % kSectorBytes != 0 || BlockFile::open({.path = file.path(), .raw = true}));
    return error(file.path());
  };
  EXPECT_THAT(error_of_one(0, "QFI\xfb"), HasSubstr("is a qcow2 image"));
  EXPECT_THAT(error_of_one(0, "KDMV"), HasSubstr("is a VMDK image"));
  EXPECT_THAT(error_of_one(64, "\x7f\x10\xda\xbe"), HasSubstr("is a VDI image"));
  EXPECT_THAT(error_of_one(0, "vhdxfile"), HasSubstr("is a VHDX image"));
  // Of any length.
  EXPECT_THAT(error_of_one(0, "\x1f\x8b\x08", 700), HasSubstr("is compressed with gzip"));
  EXPECT_THAT(error_of_one(0,
                           "\xfd"
                           "7zXZ",
                           40),
              HasSubstr("is compressed with xz"));
  EXPECT_EQ(error_of_one(1, "QFI\xfb"), "");
}

}  // namespace
}  // namespace virtio
