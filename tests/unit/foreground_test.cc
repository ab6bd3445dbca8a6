#include "cli/foreground.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>
#include <thread>

#include "tests/support/pty.h"

namespace cli {
namespace {

struct Pipe {
  Pipe() {
    int ends[2];
    EXPECT_EQ(::pipe2(ends, O_CLOEXEC), 0);
    reader.reset(ends[0]);
    writer.reset(ends[1]);
  }
  void write(std::string_view text) const {
    EXPECT_EQ(::write(writer.get(), text.data(), text.size()), static_cast<ssize_t>(text.size()));
  }
  base::Fd reader, writer;
};

// Collects what it is asked for; ends when it is stopped or has read `end`.
struct FakeMachine {
  explicit FakeMachine(Foreground& loop) : foreground(loop) {}

  Foreground::Machine hooks() {
    return {.name = "job1",
            .ended = ended.fd(),
            .power_button =
                [this] {
                  events += "power;";
                  ::kill(::getpid(), SIGTERM);
                },
            .stop =
                [this] {
                  events += "stop;";
                  ended.signal();
                },
            .snapshot = [this] { events += "snapshot;"; },
            .snapshot_and_stop = {},
            .push_input = [this](std::span<const uint8_t> bytes) { return take(bytes); }};
  }
  size_t take(std::span<const uint8_t> bytes) {
    size_t count = std::min(bytes.size(), room);
    input.append(bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(count));
    if (count < bytes.size()) foreground.input_room();
    if (!end.empty() && input.ends_with(end)) ended.signal();
    return count;
  }

  Foreground& foreground;
  base::EventFd ended = *base::EventFd::create();
  std::string events;
  std::string input;
  std::string end;
  size_t room = SIZE_MAX;
};

TEST(Foreground, ReturnsWhenTheMachineHasEnded) {
  auto foreground = *Foreground::create();
  FakeMachine machine(*foreground);
  Pipe pipe;
  std::thread other([&] { machine.ended.signal(); });
  EXPECT_TRUE(foreground->run(machine.hooks(), pipe.reader.get()));
  other.join();
  EXPECT_EQ(machine.events, "");
}

TEST(Foreground, TheFirstSignalIsThePowerButtonTheSecondStops) {
  for (int number : {SIGTERM, SIGINT, SIGHUP}) {
    auto foreground = *Foreground::create();
    FakeMachine machine(*foreground);
    Pipe pipe;
    ::kill(::getpid(), number);
    testing::internal::CaptureStderr();
    EXPECT_TRUE(foreground->run(machine.hooks(), pipe.reader.get()));
    EXPECT_NE(testing::internal::GetCapturedStderr().find("power off"), std::string::npos);
    EXPECT_EQ(machine.events, "power;stop;") << number;
  }
}

TEST(Foreground, APipesBytesAllReachTheGuest) {
  auto foreground = *Foreground::create();
  FakeMachine machine(*foreground);
  machine.end = "end";
  machine.room = 2;  // a device that takes little at a time
  Pipe pipe;
  pipe.write("first \x01x\x03 end");
  EXPECT_TRUE(foreground->run(machine.hooks(), pipe.reader.get()));
  EXPECT_EQ(machine.input, "first \x01x\x03 end");
  EXPECT_EQ(machine.events, "");
}

TEST(Foreground, EndOfInputDoesNotEndTheMachine) {
  auto foreground = *Foreground::create();
  FakeMachine machine(*foreground);
  Pipe pipe;
  pipe.writer.reset();
  ::kill(::getpid(), SIGTERM);
  testing::internal::CaptureStderr();
  EXPECT_TRUE(foreground->run(machine.hooks(), pipe.reader.get()));
  testing::internal::GetCapturedStderr();
  EXPECT_EQ(machine.events, "power;stop;");
}

// A machine in a child process on a terminal. It ends when it is stopped; status 1 where the guest
// got something else than `expected`.
pid_t run_on(test::Pty& pty, const char* expected, size_t room = SIZE_MAX) {
  return pty.spawn([=] {
    auto foreground = *Foreground::create();
    FakeMachine machine(*foreground);
    machine.room = room;
    if (!foreground->run(machine.hooks(), STDIN_FILENO)) return 2;
    return machine.input == expected && machine.events == "stop;" ? 0 : 1;
  });
}

TEST(Foreground, CtrlAXOnATerminalStops) {
  test::Pty pty;
  pid_t child = run_on(pty, "ls\r\x03\x01");
  pty.wait_raw(true);
  pty.type("ls\r\x03\x01\x01\x01x");
  EXPECT_EQ(test::wait_for(child), 0);
  EXPECT_FALSE(pty.raw());
}

TEST(Foreground, CtrlAXWorksWhenTheGuestTakesNothing) {
  test::Pty pty;
  pid_t child = run_on(pty, "", 0);
  pty.wait_raw(true);
  pty.type("ls\r");
  pty.type("\x01x");
  EXPECT_EQ(test::wait_for(child), 0);
}

TEST(Foreground, ATerminalIsGivenBackWhileTheProcessIsStopped) {
  test::Pty pty;
  pid_t child = run_on(pty, "a");
  pty.wait_raw(true);
  ::kill(child, SIGTSTP);
  ASSERT_TRUE(WIFSTOPPED(test::wait_for(child)));
  EXPECT_FALSE(pty.raw());
  ::kill(child, SIGCONT);
  pty.wait_raw(true);
  pty.type("a\x01x");
  EXPECT_EQ(test::wait_for(child), 0);
}

}  // namespace
}  // namespace cli
