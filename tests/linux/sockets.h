// Sockets of a test's host side, blocking, with kPatience as the limit.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "vmm/base/fd.h"

namespace linux_tests {

class Socket {
 public:
  Socket() = default;
  explicit Socket(base::Fd fd) : fd_(std::move(fd)) {}

  // A TCP listener on 127.0.0.1, any free port.
  static Socket listen_tcp(uint16_t& port);
  static Socket connect_tcp(uint16_t port);
  static Socket listen_unix(const std::string& path);
  static Socket connect_unix(const std::string& path);
  // A TCP port on 127.0.0.1 that is free now.
  static uint16_t free_port();

  explicit operator bool() const { return static_cast<bool>(fd_); }
  Socket accept() const;
  void send(std::string_view text) const;
  void close_sending() const;
  // Reads up to and including the first '\n', or to the end; "" at the end.
  std::string read_line() const;
  // Reads until `bytes` came, or to the end.
  std::string read_bytes(size_t bytes) const;

 private:
  base::Fd fd_;
};

}  // namespace linux_tests
