#include "vmm/base/unix_socket.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <optional>

namespace base {
namespace {

class UnixSocketTest : public ::testing::Test {
 protected:
  UnixSocketTest() {
    char name[] = "/tmp/minivmm-unix-XXXXXX";
    directory_ = ::mkdtemp(name);
    path_ = directory_ / "s";
  }
  ~UnixSocketTest() override { std::filesystem::remove_all(directory_); }

  // A socket file nobody listens on, as a killed process leaves it.
  void leave_stale() {
    {
      auto listener = UnixListener::create(path_);
      ASSERT_TRUE(listener);
      std::filesystem::rename(path_, directory_ / "kept");
    }
    std::filesystem::rename(directory_ / "kept", path_);
  }

  std::filesystem::path directory_;
  std::string path_;
};

TEST_F(UnixSocketTest, CarriesBytesAndRemovesItsFile) {
  {
    auto listener = UnixListener::create(path_);
    ASSERT_TRUE(listener) << listener.error().text();
    struct stat info{};
    ASSERT_EQ(::stat(path_.c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777, 0600u);
    EXPECT_EQ(listener->accept().error().os_error(), EAGAIN);
    auto client = connect_unix(path_);
    ASSERT_TRUE(client) << client.error().text();
    auto server = listener->accept();
    ASSERT_TRUE(server) << server.error().text();
    ASSERT_EQ(::write(client->get(), "abc", 3), 3);
    char bytes[8];
    EXPECT_EQ(::read(server->get(), bytes, sizeof bytes), 3);
    EXPECT_EQ(std::string(bytes, 3), "abc");
    EXPECT_LT(::read(server->get(), bytes, sizeof bytes), 0);  // does not block
    EXPECT_EQ(errno, EAGAIN);
  }
  EXPECT_FALSE(std::filesystem::exists(path_));
}

TEST_F(UnixSocketTest, ReplacesADeadSocketButNotALiveOne) {
  leave_stale();
  ASSERT_TRUE(std::filesystem::is_socket(path_));
  EXPECT_EQ(connect_unix(path_).error().os_error(), ECONNREFUSED);
  auto listener = UnixListener::create(path_);
  ASSERT_TRUE(listener) << listener.error().text();
  auto second = UnixListener::create(path_);
  ASSERT_FALSE(second);
  EXPECT_NE(second.error().text().find("another process listens"), std::string::npos);
  EXPECT_TRUE(connect_unix(path_));  // the first one was left alone
}

TEST_F(UnixSocketTest, ListensWhenItIsTold) {
  auto listener = UnixListener::bind(path_);
  ASSERT_TRUE(listener) << listener.error().text();
  EXPECT_EQ(connect_unix(path_).error().os_error(), ECONNREFUSED);
  ASSERT_TRUE(listener->listen());
  EXPECT_TRUE(connect_unix(path_));
}

TEST_F(UnixSocketTest, SaysWhereItWasReplacedBeforeItListened) {
  auto listener = UnixListener::bind(path_);
  ASSERT_TRUE(listener) << listener.error().text();
  auto second = UnixListener::create(path_);
  ASSERT_TRUE(second) << second.error().text();
  auto listening = listener->listen();
  ASSERT_FALSE(listening);
  EXPECT_NE(listening.error().text().find(path_), std::string::npos);
}

TEST_F(UnixSocketTest, LeavesOtherFilesAlone) {
  std::ofstream(path_) << "data";
  auto listener = UnixListener::create(path_);
  ASSERT_FALSE(listener);
  EXPECT_NE(listener.error().text().find("not a socket"), std::string::npos);
  EXPECT_EQ(std::filesystem::file_size(path_), 4u);
}

TEST_F(UnixSocketTest, DoesNotRemoveAFileThatTookItsPlace) {
  {
    auto listener = UnixListener::create(path_);
    ASSERT_TRUE(listener);
    std::filesystem::remove(path_);
    std::ofstream(path_) << "data";
  }
  EXPECT_TRUE(std::filesystem::is_regular_file(path_));
}

TEST_F(UnixSocketTest, RefusesAPathThatDoesNotFit) {
  std::string longest = path_ + std::string(kMaxUnixPath - path_.size(), 'x');
  EXPECT_TRUE(UnixListener::create(longest));
  auto longer = UnixListener::create(longest + "x");
  ASSERT_FALSE(longer);
  EXPECT_NE(longer.error().text().find("shorter"), std::string::npos);
  EXPECT_EQ(connect_unix(path_ + "none").error().os_error(), ENOENT);
}

}  // namespace
}  // namespace base
