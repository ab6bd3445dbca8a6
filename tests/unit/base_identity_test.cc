#include "snapshot/disk/base_identity.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/stat.h>

#include "tests/support/temporary_file.h"
#include "vmm/base/fd.h"

namespace snapshot {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kBytes = 3 << 20;

BaseIdentity identify(const test::TemporaryFile& file) {
  base::Fd fd = std::move(*base::open_file(file.path(), O_RDONLY));
  return *identify_base(fd.get(), kBytes, file.path());
}
base::Result<void> check(const BaseIdentity& recorded, const test::TemporaryFile& file,
                         uint64_t size = kBytes) {
  base::Fd fd = std::move(*base::open_file(file.path(), O_RDONLY));
  return check_base(recorded, fd.get(), size, file.path());
}

TEST(BaseIdentityTest, TheSameFileAndAnExactCopyAreTaken) {
  test::TemporaryFile file(std::string(kBytes, 'x')), copy(std::string(kBytes, 'x'));
  BaseIdentity identity = identify(file);
  EXPECT_TRUE(check(identity, file));
  EXPECT_TRUE(check(identity, copy));
  // New permissions are no new content.
  ASSERT_EQ(::chmod(file.path().c_str(), 0400), 0);
  EXPECT_TRUE(check(identity, file));
}

TEST(BaseIdentityTest, AFileThatWasWrittenToIsRefused) {
  test::TemporaryFile file(std::string(kBytes, 'x'));
  BaseIdentity identity = identify(file);
  // Even where its content is the same, or no sample shows a difference.
  timespec times[2] = {{0, UTIME_NOW}, {1, 0}};
  ASSERT_EQ(::utimensat(AT_FDCWD, file.path().c_str(), times, 0), 0);
  auto touched = check(identity, file);
  ASSERT_FALSE(touched);
  EXPECT_THAT(touched.error().text(), HasSubstr("was written to after the snapshot was taken"));
}

TEST(BaseIdentityTest, AnotherImageIsRefused) {
  test::TemporaryFile file(std::string(kBytes, 'x'));
  std::string other_content(kBytes, 'x');
  other_content[100] = 'y';
  test::TemporaryFile other(other_content);
  BaseIdentity identity = identify(file);
  auto content = check(identity, other);
  ASSERT_FALSE(content);
  EXPECT_THAT(content.error().text(), HasSubstr("is not the snapshot's base image"));
  auto size = check(identity, file, kBytes - 512);
  ASSERT_FALSE(size);
  EXPECT_THAT(size.error().text(),
              HasSubstr("has 3145216 bytes, the snapshot's base image had 3145728"));
}

TEST(BaseIdentityTest, SurvivesBeingStored) {
  BaseIdentity identity{1, 2, 3, 4, 5, 6};
  auto bytes = encode_base(identity);
  EXPECT_EQ(*decode_base(bytes), identity);
  bytes.pop_back();
  EXPECT_FALSE(decode_base(bytes));
  bytes = encode_base(identity);
  bytes[0] = std::byte{9};
  EXPECT_FALSE(decode_base(bytes));
}

}  // namespace
}  // namespace snapshot
