#include "devices/serial_output.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "vmm/base/log.h"
#include "vmm/base/thread.h"

namespace devices {
namespace {

// Longest write at once: a pipe that is writable takes this much without blocking (PIPE_BUF).
constexpr size_t kMaxWrite = 4096;

// A descriptor whose writes do not block. Opening a terminal or pipe anew gives it flags of its
// own; a file must keep its offset and never blocks for long, a socket has a flag for each call.
base::Result<base::Fd> nonblocking_copy(int fd, const struct stat& status) {
  if (S_ISCHR(status.st_mode) || S_ISFIFO(status.st_mode)) {
    auto reopened = base::open_file(fmt::format("/proc/self/fd/{}", fd),
                                    O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (reopened) return reopened;  // a terminal of another user's is not ours to open
  }
  base::Fd copy(fcntl(fd, F_DUPFD_CLOEXEC, 0));
  if (!copy) return base::fail_errno(fmt::format("duplicate descriptor {} for serial output", fd));
  return copy;
}

}  // namespace

base::Result<SerialOutput::Target> SerialOutput::open(int fd) {
  struct stat status;
  if (fstat(fd, &status) < 0) {
    return base::fail_errno(fmt::format("serial output to descriptor {}", fd));
  }
  TRY_ASSIGN(base::Fd copy, nonblocking_copy(fd, status));
  return Target{std::move(copy), S_ISSOCK(status.st_mode)};
}

base::Result<void> SerialOutput::begin() {
  TRY_ASSIGN(thread_, base::start_thread("serial-output", [this] { loop(); }));
  return {};
}

base::Result<std::unique_ptr<SerialOutput>> SerialOutput::start(Serial& serial, int fd) {
  TRY_ASSIGN(Target target, open(fd));
  auto output = std::make_unique<SerialOutput>(serial, std::move(target));
  TRY(output->begin());
  return output;
}

SerialOutput::SerialOutput(Serial& serial, Target target)
    : serial_(serial), target_(std::move(target)) {
  serial_.set_output_listener([this] { wake(); });
}

SerialOutput::~SerialOutput() {
  serial_.set_output_listener(nullptr);
  {
    std::scoped_lock lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_one();
  if (thread_.joinable()) {
    thread_.join();
  } else {
    serial_.take_output(chunk_);
    write_out();
  }
}

void SerialOutput::wake() {
  {
    std::scoped_lock lock(mutex_);
    woken_ = true;
  }
  changed_.notify_one();
}

void SerialOutput::loop() {
  // A reader that went away is an error of write(), not our end: no signal comes here.

  bool stopping = false;
  while (!stopping) {
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return woken_ || stopping_; });
      changed_.wait_for(lock, kLinger, [this] { return stopping_; });
      woken_ = false;
      stopping = stopping_;
    }
    serial_.take_output(chunk_);
    write_out();
  }
}

void SerialOutput::write_out() {
  std::span<const uint8_t> rest = chunk_;
  while (!rest.empty() && !broken_) {
    size_t size = std::min(rest.size(), kMaxWrite);
    ssize_t written = target_.socket
                          ? send(target_.fd.get(), rest.data(), size, MSG_DONTWAIT | MSG_NOSIGNAL)
                          : ::write(target_.fd.get(), rest.data(), size);
    if (written > 0) {
      rest = rest.subspan(static_cast<size_t>(written));
    } else if (written < 0 && errno == EAGAIN) {
      if (!wait_writable()) return;
    } else if (written < 0 && errno != EINTR) {
      base::log_warning("serial output: {}: what the guest prints is lost from here on",
                        std::strerror(errno));
      broken_ = true;
    }
  }
}

// False where the destructor waits and the reader took nothing for kStopTimeout.
bool SerialOutput::wait_writable() {
  constexpr int kSliceMs = 50;
  int waited_ms = 0;
  while (true) {
    pollfd writable{.fd = target_.fd.get(), .events = POLLOUT, .revents = 0};
    if (poll(&writable, 1, kSliceMs) > 0) return true;
    std::scoped_lock lock(mutex_);
    if (stopping_) waited_ms += kSliceMs;
    if (waited_ms >= kStopTimeout.count()) return false;
  }
}

}  // namespace devices
