#include "cli/terminal.h"

#include <signal.h>
#include <termios.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdlib>
#include <mutex>

namespace cli {
namespace {

// Signals that end the process and are not taken by the main loop.
constexpr std::array kFatalSignals{SIGSEGV, SIGBUS, SIGABRT, SIGFPE,  SIGILL,
                                   SIGTRAP, SIGSYS, SIGQUIT, SIGXCPU, SIGXFSZ};

// What a signal handler and an exit handler need to put the terminal back: they get no argument,
// so this is the one place of the program with static state. Written by the main thread while
// `armed` is false, read by anybody who changes it from true to false.
struct Saved {
  std::atomic<bool> armed = false;
  std::mutex raw;  // held while it is made raw
  int fd = -1;
  termios before{};
  std::array<struct sigaction, kFatalSignals.size()> handlers{};
};
Saved& saved() {
  static Saved instance;
  return instance;
}

void on_fatal_signal(int number) {
  Terminal::put_back();
  // Then what would have happened without us: the default action or the handler of a sanitizer.
  for (size_t i = 0; i < kFatalSignals.size(); ++i) {
    if (kFatalSignals[i] == number) sigaction(number, &saved().handlers[i], nullptr);
  }
  raise(number);
}

void catch_fatal_signals() {
  struct sigaction action{};
  action.sa_handler = on_fatal_signal;
  sigemptyset(&action.sa_mask);
  for (size_t i = 0; i < kFatalSignals.size(); ++i) {
    sigaction(kFatalSignals[i], &action, &saved().handlers[i]);
  }
}

void release_fatal_signals() {
  for (size_t i = 0; i < kFatalSignals.size(); ++i) {
    sigaction(kFatalSignals[i], &saved().handlers[i], nullptr);
  }
}

}  // namespace

// Whoever disarms, restores; so it happens once.
void Terminal::put_back() {
  Saved& state = saved();
  if (!state.armed.exchange(false)) return;
  // A background process is stopped by SIGTTOU when it sets the terminal, unless it is blocked.
  sigset_t ttou, mask;
  sigemptyset(&ttou);
  sigaddset(&ttou, SIGTTOU);
  pthread_sigmask(SIG_BLOCK, &ttou, &mask);
  tcsetattr(state.fd, TCSANOW, &state.before);
  pthread_sigmask(SIG_SETMASK, &mask, nullptr);
}

void Terminal::leave() {
  saved().raw.lock();
  put_back();
}

base::Result<std::unique_ptr<Terminal>> Terminal::open(int fd) {
  std::unique_ptr<Terminal> terminal(new Terminal(fd));
  Saved& state = saved();
  terminal->is_terminal_ = tcgetattr(fd, &state.before) == 0;
  if (!terminal->is_terminal_) return terminal;
  state.fd = fd;
  static const int registered = std::atexit(Terminal::put_back);
  if (registered != 0) return base::fail("cannot register the restoring of the terminal");
  catch_fatal_signals();
  terminal->resume();
  return terminal;
}

Terminal::~Terminal() {
  if (!is_terminal_) return;
  put_back();
  release_fatal_signals();
}

void Terminal::suspend() {
  put_back();
  raw_ = false;
}

void Terminal::resume() {
  // Without a job control the call fails and the terminal is ours.
  pid_t foreground = is_terminal_ ? tcgetpgrp(fd_) : 0;
  if (!is_terminal_ || (foreground >= 0 && foreground != getpgrp())) return;
  termios raw = saved().before;
  raw.c_iflag &= ~tcflag_t{IGNBRK | BRKINT | PARMRK | ISTRIP | INLCR | IGNCR | ICRNL | IXON};
  raw.c_lflag &= ~tcflag_t{ECHO | ECHONL | ICANON | ISIG | IEXTEN};
  raw.c_cflag &= ~tcflag_t{CSIZE | PARENB};
  raw.c_cflag |= CS8;
  // Output processing stays: messages of the VMM itself start at the left margin.
  raw.c_cc[VMIN] = 1;
  raw.c_cc[VTIME] = 0;
  std::lock_guard lock(saved().raw);
  saved().armed = true;
  raw_ = tcsetattr(fd_, TCSANOW, &raw) == 0;
}

}  // namespace cli
