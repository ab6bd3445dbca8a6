// A network backend whose other end is in the test's hands: what a tap or the user-mode stack is to
// the device, without either.
#pragma once

#include <sys/socket.h>

#include <cerrno>
#include <cstddef>
#include <memory>
#include <stdexcept>
#include <vector>

#include "devices/virtio/net_backend.h"
#include "vmm/base/fd.h"

namespace testing_support {

class SocketBackend : public virtio::NetBackend {
 public:
  // `offloads`: as NetBackend's; with any, frames on the wire begin with a header.
  SocketBackend(base::Fd device_end, uint64_t offloads)
      : device_end_(std::move(device_end)), offloads_(offloads) {}
  int fd() const override { return device_end_.get(); }
  uint64_t offloads() const override { return offloads_; }
  base::Result<void> use_offloads(uint64_t features) override {
    used_ = features;
    return {};
  }
  uint64_t used_offloads() const { return used_; }

 private:
  base::Fd device_end_;
  uint64_t offloads_;
  uint64_t used_ = 0;
};

// Both ends of the cable: the backend goes to the device, the test sends and receives here.
class Cable {
 public:
  explicit Cable(uint64_t offloads = 0) {
    int ends[2];
    if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) < 0) {
      throw std::logic_error("socketpair");
    }
    outside_.reset(ends[0]);
    backend_ = std::make_unique<SocketBackend>(base::Fd(ends[1]), offloads);
    device_side_ = backend_.get();
  }

  std::unique_ptr<virtio::NetBackend> take_backend() { return std::move(backend_); }
  const SocketBackend& device_side() const { return *device_side_; }
  int fd() const { return outside_.get(); }

  bool send(const std::vector<std::byte>& frame) {
    return ::send(outside_.get(), frame.data(), frame.size(), MSG_NOSIGNAL) ==
           static_cast<ssize_t>(frame.size());
  }
  // The next frame, empty where there is none.
  std::vector<std::byte> receive() {
    std::vector<std::byte> frame(128 * 1024);
    ssize_t size = ::recv(outside_.get(), frame.data(), frame.size(), MSG_DONTWAIT);
    frame.resize(size > 0 ? static_cast<size_t>(size) : 0);
    return frame;
  }
  void unplug() { outside_.reset(); }

 private:
  base::Fd outside_;
  std::unique_ptr<SocketBackend> backend_;
  SocketBackend* device_side_ = nullptr;
};

}  // namespace testing_support
