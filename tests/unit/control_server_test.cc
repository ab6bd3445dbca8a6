#include "cli/control_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <filesystem>
#include <thread>

#include "cli/control_client.h"
#include "tests/support/fake_target.h"
#include "tests/support/temporary_directory.h"

namespace cli {
namespace {

using testing::HasSubstr;

struct ControlServerTest : testing::Test {
  void start(ControlServer::Timeouts timeouts = {}) {
    auto listener = base::UnixListener::create(path);
    ASSERT_TRUE(listener) << listener.error().text();
    auto started = ControlServer::start(std::move(*listener), target, timeouts);
    ASSERT_TRUE(started) << started.error().text();
    server = std::move(*started);
  }
  base::Fd connect() { return *base::connect_unix(path); }
  static void send(const base::Fd& client, std::string_view text) {
    ASSERT_EQ(::send(client.get(), text.data(), text.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(text.size()));
  }
  // All there is until the server closes.
  static std::string read_all(const base::Fd& client) {
    std::string text;
    char chunk[4096];
    for (;;) {
      pollfd polled{client.get(), POLLIN, 0};
      ::poll(&polled, 1, -1);
      ssize_t count = ::recv(client.get(), chunk, sizeof chunk, 0);
      if (count <= 0) return text;
      text.append(chunk, static_cast<size_t>(count));
    }
  }

  test::TemporaryDirectory directory;
  std::string path = directory.file("s");
  test::FakeTarget target;
  std::unique_ptr<ControlServer> server;
};

TEST_F(ControlServerTest, AnswersItsClient) {
  start();
  EXPECT_EQ(std::filesystem::status(path).permissions(),
            std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
  EXPECT_EQ(*ask_or_fail(path, {"GET", "/stats", ""}), R"({"disk0":{"reads":3}})");
  EXPECT_EQ(ask(path, {"PATCH", "/vm", R"({"state":"Paused"})"})->status, 204);
  EXPECT_TRUE(target.paused_);
  auto refused = ask_or_fail(path, {"PATCH", "/vm", "{}"});
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().text(), HasSubstr("field state"));
}

TEST_F(ControlServerTest, RemovesItsSocketAndRefusesOneInUse) {
  start();
  auto second = base::UnixListener::create(path);
  ASSERT_FALSE(second);
  EXPECT_THAT(second.error().text(), HasSubstr(path));
  server.reset();
  EXPECT_TRUE(directory.empty());
}

TEST_F(ControlServerTest, ASilentClientHoldsUpNobody) {
  start();
  base::Fd silent = connect();
  base::Fd half = connect();
  send(half, "GET /stats HT");
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(ask_or_fail(path, {"GET", "/", ""}));
}

TEST_F(ControlServerTest, ASlowClientIsClosedWhenItsTimeIsOver) {
  start({.request = std::chrono::milliseconds(50), .idle = std::chrono::milliseconds(50)});
  base::Fd silent = connect();
  EXPECT_EQ(read_all(silent), "");
  // Bytes that trickle in do not help: the sending fails in the end.
  base::Fd slow = connect();
  while (::send(slow.get(), "G", 1, MSG_NOSIGNAL) == 1) ::usleep(1000);
  // Between requests, too.
  base::Fd idle = connect();
  send(idle, "GET /version HTTP/1.1\r\n\r\n");
  EXPECT_THAT(read_all(idle), HasSubstr("200 OK"));
}

TEST_F(ControlServerTest, AClientThatTakesNoAnswersIsClosed) {
  start({.request = std::chrono::milliseconds(50), .idle = std::chrono::milliseconds(60000)});
  base::Fd greedy = connect();
  std::string request = "GET /vm/config HTTP/1.1\r\n\r\n";
  // EAGAIN while the server reads no more; another error when it has closed.
  ssize_t sent = 0;
  do {
    sent = ::send(greedy.get(), request.data(), request.size(), MSG_NOSIGNAL);
    if (sent < 0) ::usleep(1000);
  } while (sent >= 0 || errno == EAGAIN);
  EXPECT_TRUE(ask_or_fail(path, {"GET", "/", ""}));
}

TEST_F(ControlServerTest, TheLongestSilentClientMakesRoom) {
  start();
  std::vector<base::Fd> clients;
  for (size_t i = 0; i < ControlServer::kMaxConnections; ++i) clients.push_back(connect());
  base::Fd last = connect();
  send(last, "GET /version HTTP/1.1\r\nConnection: close\r\n\r\n");
  EXPECT_THAT(read_all(last), HasSubstr("200 OK"));
  EXPECT_EQ(read_all(clients[0]), "");
}

TEST_F(ControlServerTest, ManyClientsAtOnceAreAllAnswered) {
  start();
  std::atomic<int> answered = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] {
      for (int j = 0; j < 25; ++j) {
        if (ask_or_fail(path, {"GET", "/stats", ""})) ++answered;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(answered, 200);
}

TEST_F(ControlServerTest, TheAnswerToStopArrivesAlthoughTheMachineEnds) {
  start();
  std::thread main_thread;
  target.on_stop_ = [&] { main_thread = std::thread([&] { server.reset(); }); };
  auto answer = ask(path, {"PUT", "/stop", ""});
  main_thread.join();
  ASSERT_TRUE(answer) << answer.error().text();
  EXPECT_EQ(answer->status, 204);
}

TEST_F(ControlServerTest, SurvivesWhatIsNoHttp) {
  start();
  base::Fd client = connect();
  send(client, std::string("\0\xFF\r\n\r\n", 6));
  EXPECT_THAT(read_all(client), HasSubstr("400 Bad Request"));
  EXPECT_TRUE(ask_or_fail(path, {"GET", "/", ""}));
}

TEST(ControlClient, SaysThatNobodyListens) {
  test::TemporaryDirectory directory;
  auto answer = ask(directory.file("s"), {"GET", "/", ""});
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().os_error(), ENOENT);
  EXPECT_THAT(answer.error().text(), HasSubstr(directory.file("s")));
}

TEST(ControlClient, GivesUpOnAMachineThatDoesNotAnswer) {
  test::TemporaryDirectory directory;
  auto listener = *base::UnixListener::create(directory.file("s"));
  auto answer = ask(listener.path(), {"GET", "/", ""}, std::chrono::milliseconds(20));
  ASSERT_FALSE(answer);
  EXPECT_THAT(answer.error().text(), HasSubstr("does not answer"));
}

}  // namespace
}  // namespace cli
