// What a host program says to reach a port of the guest: "CONNECT <port>\n" on the device's Unix
// socket (the protocol of Firecracker's vsock device). Owned by Vsock, used under the transport's
// lock.
#pragma once

#include <cstdint>
#include <string>

#include "vmm/base/fd.h"

namespace virtio {

class VsockHandshake {
 public:
  enum class State { kIncomplete, kDone, kRefused };

  explicit VsockHandshake(base::Fd socket) : socket_(std::move(socket)) {}

  // The socket is readable. Takes the line and nothing behind it: that belongs to the stream.
  State read();
  uint32_t port() const { return port_; }  // after kDone
  base::Fd take_socket() { return std::move(socket_); }

 private:
  State parse();

  base::Fd socket_;
  std::string line_;
  uint32_t port_ = 0;
};

}  // namespace virtio
