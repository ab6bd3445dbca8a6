#include "cli/guest_console.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <unistd.h>

namespace cli {

using base::Result;

namespace {

// Standard output, not blocking, without touching the flags that a shell shares with us: a
// descriptor of its own for the same file. Sockets cannot be opened again; they are ours alone.
Result<base::Fd> nonblocking_stdout() {
  base::Fd again(::open("/proc/self/fd/1", O_WRONLY | O_NONBLOCK | O_CLOEXEC));
  if (again) return again;
  base::Fd copy(::fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3));
  if (!copy || ::fcntl(copy.get(), F_SETFL, O_NONBLOCK) < 0) {
    return base::fail_errno("standard output");
  }
  return copy;
}

}  // namespace

Result<std::unique_ptr<GuestConsole>> GuestConsole::create(ConsoleKind kind,
                                                           std::function<void()> on_room) {
  std::unique_ptr<GuestConsole> console(new GuestConsole(kind, std::move(on_room)));
  if (kind == ConsoleKind::kVirtio) TRY(console->create_pipe());
  if (kind == ConsoleKind::kSerial) {
    TRY_ASSIGN(console->target_, devices::SerialOutput::open(STDOUT_FILENO));
  }
  return console;
}

GuestConsole::~GuestConsole() = default;

Result<void> GuestConsole::create_pipe() {
  int ends[2];
  if (::pipe2(ends, O_NONBLOCK | O_CLOEXEC) < 0) return base::fail_errno("pipe");
  base::Fd guest_end(ends[0]);
  input_ = base::Fd(ends[1]);
  TRY_ASSIGN(base::Fd output, nonblocking_stdout());
  descriptors_ = {std::move(guest_end), std::move(output)};
  TRY_ASSIGN(waker_, base::EventLoop::create_idle("console-input"));
  return {};
}

std::optional<devices::PlatformConfig::Console> GuestConsole::take_descriptors() {
  return std::exchange(descriptors_, std::nullopt);
}

void GuestConsole::connect(devices::Platform& platform) {
  if (kind_ != ConsoleKind::kSerial) return;
  serial_ = &platform.serial();
  serial_->set_input_listener(on_room_);
  output_ = std::make_unique<devices::SerialOutput>(*serial_, std::move(target_));
}

Result<void> GuestConsole::begin() {
  if (output_) TRY(output_->begin());
  if (waker_) TRY(waker_->begin());
  return {};
}

size_t GuestConsole::push(std::span<const uint8_t> bytes) {
  if (kind_ == ConsoleKind::kSerial) return serial_->push_input(bytes);
  ssize_t written = ::write(input_.get(), bytes.data(), bytes.size());
  size_t taken = written < 0 ? 0 : static_cast<size_t>(written);
  if (taken < bytes.size()) {
    // Watched already where push() is called again before there is room.
    (void)waker_->watch(input_.get(), EPOLLOUT, [this](uint32_t) {
      waker_->unwatch(input_.get());
      on_room_();
    });
  }
  return taken;
}

}  // namespace cli
