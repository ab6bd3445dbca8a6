#include "devices/virtio/console.h"

#include <fmt/format.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "devices/virtio/chain_io.h"
#include "vmm/base/endian.h"
#include "vmm/base/log.h"

namespace virtio {

using base::fail;
using base::Result;

Result<std::unique_ptr<Console>> Console::create(std::string name, base::Fd input, base::Fd output,
                                                 std::optional<Size> size) {
  struct stat status;
  if (input && ::fstat(input.get(), &status) == 0 && S_ISREG(status.st_mode)) {
    return fail(fmt::format(
        "{}: a regular file cannot be waited on: give its content through a pipe", name));
  }
  TRY_ASSIGN(base::EventFd again, base::EventFd::create());
  return std::unique_ptr<Console>(
      new Console(std::move(name), std::move(input), std::move(output), std::move(again), size));
}

// struct virtio_console_config (virtio 1.2, 5.3.4).
void Console::read_config(uint32_t offset, std::span<uint8_t> data) const {
  std::array<uint8_t, 12> config{};
  if (size_) {
    base::store_le(config, 0, size_->columns);
    base::store_le(config, 2, size_->rows);
  }
  read_config_bytes(config, offset, data);
}

Result<void> Console::activate(Transport& transport, uint64_t) {
  transport_ = &transport;
  TRY(transport.watch(again_.fd(), EPOLLIN, [this](uint32_t) {
    again_.consume();
    return process(kTransmitQueue);
  }));
  return transport.has_queue(kReceiveQueue) ? watch_input(true) : Result<void>();
}

bool Console::reset() {
  transport_->unwatch(again_.fd());
  again_.consume();
  if (watching_input_) transport_->unwatch(input_.get());
  if (watching_output_) transport_->unwatch(output_.get());
  watching_input_ = watching_output_ = false;
  written_ = 0;
  transport_ = nullptr;
  return true;
}

// Input that was read is with the driver. Of output, a request may be out in part: the rest is
// written after a restore, nothing twice.
void Console::save(base::Encoder& to) const { to.u64(written_); }

Result<void> Console::restore(base::Decoder& from) {
  written_ = from.u64();
  if (written_ <= UINT32_MAX) return {};
  return fail(fmt::format("{} bytes written of a request", written_));
}

Result<void> Console::process(uint16_t queue) {
  return queue == kReceiveQueue ? receive() : transmit();
}

// --- host to driver ---

// A descriptor that is not wanted is not watched at all: a hang-up would be reported all the same.
Result<void> Console::watch_input(bool on) {
  if (on == watching_input_ || !input_) return {};
  if (on) {
    auto watched = transport_->watch(input_.get(), EPOLLIN, [this](uint32_t) { return receive(); });
    // /dev/null and its like cannot be waited on, and never have anything.
    if (!watched && watched.error().os_error() == EPERM) return {};
    TRY(watched);
  } else {
    transport_->unwatch(input_.get());
  }
  watching_input_ = on;
  return {};
}

Result<void> Console::receive() {
  Virtqueue& queue = transport_->queue(kReceiveQueue);
  TRY(queue.disable_kicks());
  bool wait_for_input = true;
  for (int requests = 0; input_ && requests < kTurnRequests; ++requests) {
    TRY_ASSIGN(bool popped, queue.pop(chain_));
    if (!popped) {
      TRY_ASSIGN(bool more, queue.enable_kicks());
      if (more) continue;
      wait_for_input = false;
      break;
    }
    TRY_ASSIGN(Input input, read_into(chain_, queue));
    if (input == Input::kSome) continue;
    queue.unpop();
    if (input == Input::kEnded) {
      TRY(watch_input(false));
      input_.reset();
    }
    break;
  }
  TRY(transport_->interrupt(kReceiveQueue));
  return watch_input(wait_for_input);
}

Result<Console::Input> Console::read_into(const DescriptorChain& chain, Virtqueue& queue) {
  uint64_t room = std::min<uint64_t>(chain.writable_bytes(), kMaxReadBytes);
  if (room == 0) return fail("console input buffer of 0 bytes");
  iovecs_.clear();
  TRY(append_iovecs(transport_->memory(), chain.writable, 0, room, iovecs_));
  ssize_t got = ::readv(input_.get(), iovecs_.data(), static_cast<int>(iovecs_.size()));
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return Input::kNone;
  if (got <= 0) return Input::kEnded;
  auto bytes = static_cast<uint32_t>(got);
  mark_dirty(transport_->memory(), chain.writable, bytes);
  TRY(queue.push(chain.head, bytes));
  counters_.input_bytes.fetch_add(bytes, std::memory_order_relaxed);
  return Input::kSome;
}

// --- driver to host ---

Result<void> Console::watch_output(bool on) {
  if (on == watching_output_) return {};
  watching_output_ = on;
  if (!on) {
    transport_->unwatch(output_.get());
    return {};
  }
  return transport_->watch(output_.get(), EPOLLOUT, [this](uint32_t) { return transmit(); });
}

Result<void> Console::transmit() {
  Virtqueue& queue = transport_->queue(kTransmitQueue);
  TRY(queue.disable_kicks());
  bool full = false;
  for (int requests = 0;; ++requests) {
    if (requests == kTurnRequests) {
      again_.signal();
      break;
    }
    TRY_ASSIGN(bool popped, queue.pop(chain_));
    if (!popped) {
      TRY_ASSIGN(bool more, queue.enable_kicks());
      if (!more) break;
      TRY(queue.disable_kicks());
      continue;
    }
    TRY_ASSIGN(bool taken, write_from(chain_));
    full = !taken;
    if (!full && written_ == chain_.readable_bytes()) {
      written_ = 0;
      TRY(queue.push(chain_.head, 0));
      continue;
    }
    queue.unpop();
    if (full) break;
  }
  TRY(transport_->interrupt(kTransmitQueue));
  return watch_output(full);
}

// Writes a piece of what is left of the request; false where the reader takes nothing now.
Result<bool> Console::write_from(const DescriptorChain& chain) {
  uint64_t bytes = chain.readable_bytes();
  // It was put back in between, and the guest may have put another in its place.
  if (written_ > bytes) return fail("console output changed while it was written");
  uint64_t left = bytes - written_;
  if (output_broken_) {
    counters_.thrown_away_bytes.fetch_add(left, std::memory_order_relaxed);
    written_ = bytes;
    return true;
  }
  if (left == 0) return true;
  iovecs_.clear();
  TRY(append_iovecs(transport_->memory(), chain.readable, written_,
                    std::min<uint64_t>(left, kMaxWriteBytes), iovecs_));
  ssize_t done = ::writev(output_.get(), iovecs_.data(), static_cast<int>(iovecs_.size()));
  if (done < 0 && (errno == EAGAIN || errno == EINTR)) return false;
  if (done < 0) {
    base::log_warning("console output: {}: what the guest prints is lost from here on",
                      std::strerror(errno));
    output_broken_ = true;
    return write_from(chain);
  }
  written_ += static_cast<uint64_t>(done);
  counters_.output_bytes.fetch_add(static_cast<uint64_t>(done), std::memory_order_relaxed);
  return true;
}

}  // namespace virtio
