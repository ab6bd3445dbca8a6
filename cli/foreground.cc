#include "cli/foreground.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "vmm/base/log.h"

namespace cli {
namespace {

constexpr size_t kChunk = 4096;
// A terminal is read even when the guest takes nothing, or Ctrl-A X could not end a guest that
// hangs. What is typed past this is dropped. A pipe waits instead.
constexpr size_t kMaxTypedAhead = 64 * 1024;

void say(const std::string& text) {
  std::string line = "minivmm: " + text + "\n";
  // Nothing can be done about a stderr that does not take it.
  [[maybe_unused]] ssize_t written = ::write(STDERR_FILENO, line.data(), line.size());
}

}  // namespace

base::Result<std::unique_ptr<Foreground>> Foreground::create() {
  TRY_ASSIGN(base::EventFd room, base::EventFd::create());
  sigset_t taken, before;
  sigemptyset(&taken);
  for (int number : {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGTSTP, SIGCONT}) sigaddset(&taken, number);
  pthread_sigmask(SIG_BLOCK, &taken, &before);
  base::Fd signals(::signalfd(-1, &taken, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!signals) return base::fail_errno("signalfd");
  std::unique_ptr<Foreground> foreground(new Foreground(std::move(signals), std::move(room)));
  foreground->mask_before_ = before;
  return foreground;
}

Foreground::~Foreground() {
  // A second Ctrl-C that came while the machine was taken down must not kill the process now.
  signalfd_siginfo info;
  while (::read(signals_.get(), &info, sizeof info) == sizeof info) {
  }
  pthread_sigmask(SIG_SETMASK, &mask_before_, nullptr);
}

base::Result<bool> Foreground::wait(int fd) {
  for (;;) {
    std::array<pollfd, 2> polled{{{fd, POLLIN, 0}, {signals_.get(), POLLIN, 0}}};
    if (::poll(polled.data(), polled.size(), -1) < 0) {
      if (errno == EINTR) continue;
      return base::fail_errno("poll");
    }
    if (polled[0].revents) return true;
    signalfd_siginfo info;
    if (::read(signals_.get(), &info, sizeof info) != sizeof info) continue;
    for (uint32_t end : {SIGTERM, SIGINT, SIGHUP}) {
      if (info.ssi_signo == end) return false;
    }
  }
}

base::Result<void> Foreground::run(const Machine& machine, int input) {
  input_open_ = static_cast<bool>(machine.push_input);
  TRY_ASSIGN(auto terminal, Terminal::open(input_open_ ? input : -1));
  enum { kEnded, kSignals, kRoom, kInput, kCount };
  for (;;) {
    bool read_ahead = terminal->is_terminal() || pending_.empty();
    bool want_input = input_open_ && terminal->may_read() && read_ahead;
    std::array<pollfd, kCount> polled{{{machine.ended, POLLIN, 0},
                                       {signals_.get(), POLLIN, 0},
                                       {room_.fd(), POLLIN, 0},
                                       {want_input ? input : -1, POLLIN, 0}}};
    if (::poll(polled.data(), polled.size(), -1) < 0) {
      if (errno == EINTR) continue;
      return base::fail_errno("poll");
    }
    if (polled[kEnded].revents) return {};
    if (polled[kSignals].revents) take_signal(machine, *terminal);
    if (polled[kRoom].revents && room_.consume()) flush_input(machine);
    if (polled[kInput].revents) read_input(machine, *terminal, input);
  }
}

void Foreground::take_signal(const Machine& machine, Terminal& terminal) {
  signalfd_siginfo info;
  if (::read(signals_.get(), &info, sizeof info) != sizeof info) return;
  switch (static_cast<int>(info.ssi_signo)) {
    case SIGTSTP:
      terminal.suspend();
      ::raise(SIGSTOP);
      [[fallthrough]];
    case SIGCONT:
      terminal.resume();
      break;
    case SIGUSR1:
      machine.snapshot();
      break;
    default:
      if (asked_to_end_) {
        machine.stop();
      } else if (info.ssi_signo == SIGTERM && machine.snapshot_and_stop) {
        asked_to_end_ = true;
        say("taking a snapshot, then ending; a second signal ends at once");
        machine.snapshot_and_stop();
      } else {
        asked_to_end_ = true;
        say("asking the guest to power off; a second signal stops it at once");
        machine.power_button();
      }
  }
}

void Foreground::read_input(const Machine& machine, const Terminal& terminal, int input) {
  std::array<uint8_t, kChunk> chunk;
  ssize_t count = ::read(input, chunk.data(), chunk.size());
  if (count < 0 && (errno == EINTR || errno == EAGAIN)) return;
  if (count <= 0) {
    input_open_ = false;
    return;
  }
  std::span typed(chunk.data(), static_cast<size_t>(count));
  if (!terminal.is_terminal()) {
    pending_.assign(typed.begin(), typed.end());
    return flush_input(machine);
  }
  EscapeKeys::Keys keys = keys_.filter(typed);
  size_t room = kMaxTypedAhead - std::min(kMaxTypedAhead, pending_.size());
  size_t kept = std::min(keys.guest.size(), room);
  pending_.insert(pending_.end(), keys.guest.begin(), keys.guest.begin() + kept);
  flush_input(machine);
  for (KeyCommand command : keys.commands) {
    switch (command) {
      case KeyCommand::kStop:
        machine.stop();
        break;
      case KeyCommand::kHelp:
        say(kEscapeKeysHelp);
        break;
      case KeyCommand::kControl:
        say(fmt::format("from another terminal: minivmm snapshot|pause|resume|stop|stats {}",
                        machine.name));
        break;
    }
  }
}

void Foreground::flush_input(const Machine& machine) {
  if (pending_.empty()) return;
  size_t taken = machine.push_input(pending_);
  pending_.erase(pending_.begin(), pending_.begin() + static_cast<ptrdiff_t>(taken));
}

}  // namespace cli
