#include "vmm/base/path.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "tests/support/temporary_directory.h"

namespace base {
namespace {

using test::TemporaryDirectory;
using testing::ElementsAre;

TEST(Path, ItsDirectoryIsWhereItsEntryIs) {
  EXPECT_EQ(parent_directory("a/b"), "a");
  EXPECT_EQ(parent_directory("a/b/"), "a");
  EXPECT_EQ(parent_directory("a//b//"), "a");
  EXPECT_EQ(parent_directory("/a/b/c"), "/a/b");
  EXPECT_EQ(parent_directory("/a"), "/");
  EXPECT_EQ(parent_directory("//a"), "/");
  EXPECT_EQ(parent_directory("/"), "/");
  EXPECT_EQ(parent_directory("a"), ".");
  EXPECT_EQ(parent_directory("a/"), ".");
}

TEST(Path, BecomesAbsolute) {
  EXPECT_EQ(*absolute_path("/a/b"), "/a/b");
  EXPECT_EQ(*absolute_path("//a/./b//"), "/a/b");
  EXPECT_EQ(*absolute_path("/"), "/");
  const std::string here = std::filesystem::current_path();
  EXPECT_EQ(*absolute_path("a"), here + "/a");
  EXPECT_EQ(*absolute_path("./a/."), here + "/a");
  EXPECT_EQ(*absolute_path("."), here);
  EXPECT_EQ(*absolute_path("../a"), here + "/../a");
}

TEST(Path, OneFileHasManyNames) {
  TemporaryDirectory directory;
  const std::string one = directory.file("one"), two = directory.file("two");
  std::ofstream(one) << "x";
  std::ofstream(two) << "x";
  std::filesystem::create_symlink(one, directory.file("link"));
  std::filesystem::create_hard_link(one, directory.file("hard"));
  EXPECT_TRUE(same_file(one, directory.path() + "/./one"));
  EXPECT_TRUE(same_file(one, directory.file("link")));
  EXPECT_TRUE(same_file(directory.file("hard"), one));
  EXPECT_FALSE(same_file(one, two));
  EXPECT_FALSE(same_file(one, directory.file("none")));
  EXPECT_FALSE(same_file(directory.file("none"), directory.file("none")));
}

TEST(Path, KnowsADirectory) {
  TemporaryDirectory directory;
  std::ofstream(directory.file("file")) << "x";
  EXPECT_TRUE(is_directory(directory.path()));
  EXPECT_FALSE(is_directory(directory.file("file")));
  EXPECT_FALSE(is_directory(directory.file("none")));
}

TEST(Path, NamesInADirectory) {
  TemporaryDirectory directory;
  for (const char* name : {"b", "a", ".c", "..d"}) std::ofstream(directory.file(name)) << "x";
  std::filesystem::create_directory(directory.file("e"));
  auto names = [&] { return names_in(*open_file(directory.path(), O_RDONLY | O_DIRECTORY)); };
  EXPECT_THAT(*names(), ElementsAre("..d", ".c", "a", "b", "e"));
  std::filesystem::remove(directory.file("a"));
  EXPECT_THAT(*names(), ElementsAre("..d", ".c", "b", "e"));
}

TEST(Path, NoNamesInAFile) {
  TemporaryDirectory directory;
  std::ofstream(directory.file("file")) << "x";
  auto names = names_in(*open_file(directory.file("file"), O_RDONLY));
  ASSERT_FALSE(names);
  EXPECT_EQ(names.error().os_error(), ENOTDIR);
}

}  // namespace
}  // namespace base
