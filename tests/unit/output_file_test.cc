#include "snapshot/output_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <csignal>
#include <filesystem>
#include <fstream>

#include "tests/support/temporary_directory.h"

namespace snapshot {
namespace {

using testing::HasSubstr;
using Existing = OutputFile::Existing;

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text));
}

std::string content_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

size_t files_in(const test::TemporaryDirectory& directory) {
  return static_cast<size_t>(std::distance(std::filesystem::directory_iterator(directory.path()),
                                           std::filesystem::directory_iterator()));
}

TEST(OutputFileTest, HasItsNameWhenComplete) {
  test::TemporaryDirectory directory;
  std::string path = directory.file("out");
  auto file = OutputFile::create(path, Existing::kRefuse);
  ASSERT_TRUE(file) << file.error().text();
  ASSERT_TRUE(file->resize(8));
  ASSERT_TRUE(file->write(2, bytes_of("abc")));
  EXPECT_FALSE(std::filesystem::exists(path));
  ASSERT_TRUE(file->finish());
  EXPECT_EQ(content_of(path), std::string("\0\0abc\0\0\0", 8));
  struct stat info{};
  ASSERT_EQ(::stat(path.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  EXPECT_EQ(files_in(directory), 1u);
}

TEST(OutputFileTest, GivenUpItLeavesNothing) {
  test::TemporaryDirectory directory;
  {
    auto file = OutputFile::create(directory.file("out"), Existing::kReplace);
    ASSERT_TRUE(file);
    ASSERT_TRUE(file->write(0, bytes_of("abc")));
  }
  EXPECT_TRUE(directory.empty());
}

TEST(OutputFileTest, NothingIsReplacedUnasked) {
  test::TemporaryDirectory directory;
  std::string path = directory.file("out");
  std::ofstream(path) << "precious";
  auto file = OutputFile::create(path, Existing::kRefuse);
  ASSERT_FALSE(file);
  EXPECT_THAT(file.error().text(), HasSubstr(path + " exists"));
  EXPECT_THAT(file.error().text(), HasSubstr("--force"));
  EXPECT_EQ(content_of(path), "precious");
}

TEST(OutputFileTest, AFileThatAppearedMeanwhileIsKept) {
  test::TemporaryDirectory directory;
  std::string path = directory.file("out");
  auto file = OutputFile::create(path, Existing::kRefuse);
  ASSERT_TRUE(file);
  ASSERT_TRUE(file->write(0, bytes_of("mine")));
  std::ofstream(path) << "precious";
  EXPECT_FALSE(file->finish());
  EXPECT_EQ(content_of(path), "precious");
  EXPECT_EQ(files_in(directory), 1u);
}

TEST(OutputFileTest, ReplacesWhenAsked) {
  test::TemporaryDirectory directory;
  std::string path = directory.file("out");
  std::ofstream(path) << "a longer old content";
  auto file = OutputFile::create(path, Existing::kReplace);
  ASSERT_TRUE(file);
  ASSERT_TRUE(file->write(0, bytes_of("new")));
  EXPECT_EQ(content_of(path), "a longer old content");
  ASSERT_TRUE(file->finish());
  EXPECT_EQ(content_of(path), "new");
  EXPECT_EQ(files_in(directory), 1u);
}

TEST(OutputFileTest, OnlyRegularFilesAreReplaced) {
  test::TemporaryDirectory directory;
  std::filesystem::create_symlink("/etc/passwd", directory.file("link"));
  std::filesystem::create_directory(directory.file("folder"));
  for (std::string path :
       {directory.file("link"), directory.file("folder"), std::string("/dev/null")}) {
    auto file = OutputFile::create(path, Existing::kReplace);
    ASSERT_FALSE(file) << path;
    EXPECT_THAT(file.error().text(), HasSubstr("no regular file"));
  }
  EXPECT_THAT(OutputFile::create(directory.file("missing/out"), Existing::kRefuse).error().text(),
              HasSubstr("No such file or directory"));
}

// Stands for a full disk: the error comes from the same place.
TEST(OutputFileTest, AFileThatMayNotGrowIsAnErrorThatNamesIt) {
  test::TemporaryDirectory directory;
  struct rlimit before{};
  ::getrlimit(RLIMIT_FSIZE, &before);
  struct rlimit small{4096, before.rlim_max};
  auto handler = std::signal(SIGXFSZ, SIG_IGN);
  ::setrlimit(RLIMIT_FSIZE, &small);
  {
    auto file = OutputFile::create(directory.file("out"), Existing::kRefuse);
    auto written = file->write(4096, bytes_of("x"));
    ::setrlimit(RLIMIT_FSIZE, &before);
    std::signal(SIGXFSZ, handler);
    ASSERT_FALSE(written);
    EXPECT_THAT(written.error().text(), HasSubstr(directory.file("out")));
  }
  EXPECT_TRUE(directory.empty());
}

}  // namespace
}  // namespace snapshot
