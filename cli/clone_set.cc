#include "cli/clone_set.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <nlohmann/json.hpp>

#include "vmm/base/log.h"

namespace cli {

using base::fail_errno;
using base::Result;

namespace {

constexpr char kReady = 'r', kBegin = 'b', kRunning = 's';

// False where nobody is there to read it.
bool tell(const base::Fd& link, char what) {
  return TEMP_FAILURE_RETRY(::send(link.get(), &what, 1, MSG_NOSIGNAL)) == 1;
}

// 0 at the end.
char hear(const base::Fd& link) {
  char byte = 0;
  return TEMP_FAILURE_RETRY(::recv(link.get(), &byte, 1, 0)) == 1 ? byte : '\0';
}

}  // namespace

Result<bool> CloneLink::wait_to_begin(Foreground& foreground) {
  hold_.reset();
  if (!made_ahead_) return true;
  if (!tell(fd_, kReady)) return false;
  TRY_ASSIGN(bool readable, foreground.wait(fd_.get()));
  bool wanted = readable && hear(fd_) == kBegin;
  // Nothing more is to be sent here: it takes a while to take a machine apart.
  if (!wanted) fd_.reset();
  return wanted;
}

void CloneLink::say_running() {
  tell(fd_, kRunning);
  fd_.reset();
}

Result<CloneSet> CloneSet::create(bool as_json, bool made_ahead) {
  CloneSet set(as_json, made_ahead);
  sigset_t taken;
  sigemptyset(&taken);
  for (int signal : {SIGTERM, SIGINT, SIGHUP, SIGCHLD}) sigaddset(&taken, signal);
  ::sigprocmask(SIG_BLOCK, &taken, &set.mask_before_);
  set.signals_.reset(::signalfd(-1, &taken, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!set.signals_) return fail_errno("signalfd");
  return set;
}

Result<std::optional<CloneLink>> CloneSet::add(const std::string& name) {
  int ends[2] = {-1, -1};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0) return fail_errno(name);
  base::Fd here(ends[0]), there(ends[1]);
  pid_t pid = ::fork();
  if (pid < 0) return fail_errno(name);
  if (pid == 0) {
    // Of the others' links too: each has to end with this process's parent.
    clones_.clear();
    signals_.reset();
    ::sigprocmask(SIG_SETMASK, &mask_before_, nullptr);
    return CloneLink(std::move(there), made_ahead_);
  }
  clones_.push_back({pid, name, std::move(here)});
  return std::nullopt;
}

Result<int> CloneSet::stay(int input) {
  while (!clones_.empty()) {
    bool listen = made_ahead_ && more_requests_;
    std::vector<pollfd> polled{{signals_.get(), POLLIN, 0}, {listen ? input : -1, POLLIN, 0}};
    for (const Clone& clone : clones_) polled.push_back({clone.link.get(), POLLIN, 0});
    if (::poll(polled.data(), polled.size(), -1) < 0) {
      if (errno == EINTR) continue;
      return fail_errno("poll");
    }
    if (polled[1].revents) read_requests(input);
    for (size_t i = 0; i < clones_.size(); ++i) {
      if (polled[i + 2].revents) take_state(clones_[i]);
    }
    if (made_ahead_) serve_requests();
    // Last: it takes clones out of the list.
    if (polled[0].revents) take_signal();
  }
  return status_;
}

void CloneSet::give_up() {
  for (Clone& clone : clones_) {
    if (!made_ahead_) ::kill(clone.pid, SIGKILL);
    clone.link.reset();
  }
  for (const Clone& clone : clones_) TEMP_FAILURE_RETRY(::waitpid(clone.pid, nullptr, 0));
}

void CloneSet::take_signal() {
  signalfd_siginfo info;
  while (::read(signals_.get(), &info, sizeof info) == sizeof info) {
    int signal = static_cast<int>(info.ssi_signo);
    if (signal == SIGCHLD) {
      reap();
    } else {
      more_requests_ = false;
      requests_ = 0;
      if (made_ahead_) serve_requests();
      for (const Clone& clone : clones_) ::kill(clone.pid, signal);
    }
  }
}

void CloneSet::reap() {
  int raw = 0;
  for (pid_t pid = 0; (pid = ::waitpid(-1, &raw, WNOHANG)) > 0;) {
    auto clone = std::ranges::find(clones_, pid, &Clone::pid);
    if (clone == clones_.end()) continue;
    // What it said before it ended.
    if (clone->link) take_state(*clone);
    int own = WIFEXITED(raw) ? WEXITSTATUS(raw) : 128 + WTERMSIG(raw);
    say(*clone, "ended", own);
    if (status_ == 0) status_ = own;
    clones_.erase(clone);
  }
}

void CloneSet::read_requests(int input) {
  std::array<char, 4096> text;
  ssize_t count = ::read(input, text.data(), text.size());
  if (count < 0 && (errno == EINTR || errno == EAGAIN)) return;
  if (count <= 0) {
    more_requests_ = false;
    if (half_a_line_) ++requests_;
    return;
  }
  auto end = text.begin() + count;
  requests_ += static_cast<uint64_t>(std::count(text.begin(), end, '\n'));
  half_a_line_ = end[-1] != '\n';
}

void CloneSet::take_state(Clone& clone) {
  switch (hear(clone.link)) {
    case kReady:
      clone.state = State::kReady;
      return say(clone, "ready");
    case kRunning:
      clone.state = State::kRunning;
      say(clone, "started");
      break;
    default:
      say(clone, "failed");
  }
  clone.link.reset();
}

void CloneSet::serve_requests() {
  for (Clone& clone : clones_) {
    if (requests_ == 0) break;
    if (clone.state != State::kReady || !clone.link) continue;
    // One that just died is told of as such; the request is the next one's.
    if (!tell(clone.link, kBegin)) continue;
    clone.state = State::kBegun;
    --requests_;
  }
  auto waits = [](const Clone& clone) { return clone.link && clone.state <= State::kReady; };
  if (requests_ > 0 && std::ranges::none_of(clones_, waits)) {
    base::log_warning("no clone is left to start");
    requests_ = 0;
  }
  if (more_requests_ || requests_ > 0) return;
  for (Clone& clone : clones_) {
    if (waits(clone)) clone.link.reset();
  }
}

void CloneSet::say(const Clone& clone, const char* state, int status) const {
  if (as_json_) {
    nlohmann::json line{{"name", clone.name}, {"pid", clone.pid}, {"state", state}};
    if (status >= 0) line["status"] = status;
    fmt::print("{}\n", line.dump());
  } else if (status >= 0) {
    fmt::print("{}  pid {}  {} with status {}\n", clone.name, clone.pid, state, status);
  } else {
    fmt::print("{}  pid {}  {}\n", clone.name, clone.pid, state);
  }
  std::fflush(stdout);
}

}  // namespace cli
