#include "cli/terminal.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <exception>

#include "tests/support/pty.h"

namespace cli {
namespace {

bool same(const termios& a, const termios& b) {
  return a.c_iflag == b.c_iflag && a.c_oflag == b.c_oflag && a.c_cflag == b.c_cflag &&
         a.c_lflag == b.c_lflag && std::memcmp(a.c_cc, b.c_cc, sizeof a.c_cc) == 0;
}

constexpr int kReturned = 7;

// A child that makes the terminal raw, waits for a key and then does `end`.
pid_t child_that(test::Pty& pty, void (*end)()) {
  return pty.spawn([end] {
    auto terminal = *Terminal::open(STDIN_FILENO);
    char key = 0;
    if (::read(STDIN_FILENO, &key, 1) != 1) return 99;
    end();
    return kReturned;
  });
}

struct TerminalTest : testing::Test {
  test::Pty pty;
  termios before = pty.settings();
};

TEST_F(TerminalTest, IsRawWhileItIsHeldAndKeepsOutputProcessing) {
  pid_t child = child_that(pty, [] {});
  pty.wait_raw(true);
  termios raw = pty.settings();
  EXPECT_EQ(raw.c_iflag & (ICRNL | IXON), 0u);
  EXPECT_EQ(raw.c_oflag, before.c_oflag);
  pty.type("q");
  EXPECT_EQ(WEXITSTATUS(test::wait_for(child)), kReturned);
  EXPECT_TRUE(same(pty.settings(), before));
}

TEST_F(TerminalTest, IsRestoredByExit) {
  pid_t child = child_that(pty, [] { std::exit(3); });
  pty.wait_raw(true);
  pty.type("q");
  EXPECT_EQ(WEXITSTATUS(test::wait_for(child)), 3);
  EXPECT_TRUE(same(pty.settings(), before));
}

TEST_F(TerminalTest, IsRestoredByAnExceptionNobodyCatches) {
  pid_t child = child_that(pty, [] { std::terminate(); });
  pty.wait_raw(true);
  pty.type("q");
  EXPECT_TRUE(WIFSIGNALED(test::wait_for(child)));
  EXPECT_TRUE(same(pty.settings(), before));
}

TEST_F(TerminalTest, IsGivenBackWhileTheProcessIsStopped) {
  pid_t child = pty.spawn([] {
    auto terminal = *Terminal::open(STDIN_FILENO);
    terminal->suspend();
    ::raise(SIGSTOP);
    terminal->resume();
    char key = 0;
    return ::read(STDIN_FILENO, &key, 1) == 1 ? kReturned : 99;
  });
  EXPECT_TRUE(WIFSTOPPED(test::wait_for(child)));
  EXPECT_TRUE(same(pty.settings(), before));
  ::kill(child, SIGCONT);
  pty.wait_raw(true);
  pty.type("q");
  EXPECT_EQ(WEXITSTATUS(test::wait_for(child)), kReturned);
  EXPECT_TRUE(same(pty.settings(), before));
}

TEST_F(TerminalTest, OfAnotherJobIsLeftAloneUntilItIsOurs) {
  pid_t child = pty.spawn([] {
    pid_t job = ::fork();
    if (job != 0) return WEXITSTATUS(test::wait_for(job));
    ::setpgid(0, 0);
    auto terminal = *Terminal::open(STDIN_FILENO);
    if (!terminal->is_terminal() || terminal->may_read()) return 1;
    ::signal(SIGTTOU, SIG_IGN);
    ::tcsetpgrp(STDIN_FILENO, ::getpgrp());
    terminal->resume();
    return terminal->may_read() ? kReturned : 2;
  });
  EXPECT_EQ(WEXITSTATUS(test::wait_for(child)), kReturned);
  EXPECT_TRUE(same(pty.settings(), before));
}

TEST_F(TerminalTest, IsLeftAloneWhereItIsNoTerminal) {
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  base::Fd read_end(ends[0]), write_end(ends[1]);
  auto terminal = *Terminal::open(read_end.get());
  EXPECT_FALSE(terminal->is_terminal());
  EXPECT_TRUE(terminal->may_read());
}

struct FatalSignal : testing::WithParamInterface<int>, TerminalTest {};

TEST_P(FatalSignal, RestoresTheTerminalAndStillKills) {
  int number = GetParam();
  pid_t child = pty.spawn([number] {
    auto terminal = *Terminal::open(STDIN_FILENO);
    char key = 0;
    if (::read(STDIN_FILENO, &key, 1) != 1) return 99;
    ::raise(number);
    return kReturned;
  });
  pty.wait_raw(true);
  pty.type("q");
  int status = test::wait_for(child);
  // A sanitizer that reports the signal ends with a status of its own.
  EXPECT_TRUE(WIFSIGNALED(status) || WEXITSTATUS(status) != kReturned);
  EXPECT_TRUE(same(pty.settings(), before));
}

INSTANTIATE_TEST_SUITE_P(Terminal, FatalSignal,
                         testing::Values(SIGSEGV, SIGBUS, SIGABRT, SIGQUIT, SIGSYS, SIGXCPU));

}  // namespace
}  // namespace cli
