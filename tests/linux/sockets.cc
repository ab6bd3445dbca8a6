#include "tests/linux/sockets.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>

#include "tests/linux/vm_process.h"

namespace linux_tests {

namespace {

sockaddr_in loopback(uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

sockaddr_un unix_address(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
  return address;
}

base::Fd make_socket(int family) {
  base::Fd fd(::socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  timeval limit{kPatience.count(), 0};
  ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  ::setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  return fd;
}

template <typename Address>
bool bind_and_listen(const base::Fd& fd, const Address& address) {
  return ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 &&
         ::listen(fd.get(), 8) == 0;
}

template <typename Address>
Socket connect_to(base::Fd fd, const Address& address) {
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) < 0) {
    return Socket();
  }
  return Socket(std::move(fd));
}

}  // namespace

Socket Socket::listen_tcp(uint16_t& port) {
  base::Fd fd = make_socket(AF_INET);
  if (!bind_and_listen(fd, loopback(0))) return Socket();
  sockaddr_in address{};
  socklen_t size = sizeof address;
  ::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &size);
  port = ntohs(address.sin_port);
  return Socket(std::move(fd));
}

uint16_t Socket::free_port() {
  uint16_t port = 0;
  Socket listener = listen_tcp(port);
  return port;
}

Socket Socket::connect_tcp(uint16_t port) {
  return connect_to(make_socket(AF_INET), loopback(port));
}

Socket Socket::listen_unix(const std::string& path) {
  base::Fd fd = make_socket(AF_UNIX);
  if (!bind_and_listen(fd, unix_address(path))) return Socket();
  return Socket(std::move(fd));
}

Socket Socket::connect_unix(const std::string& path) {
  return connect_to(make_socket(AF_UNIX), unix_address(path));
}

Socket Socket::accept() const {
  base::Fd fd(::accept4(fd_.get(), nullptr, nullptr, SOCK_CLOEXEC));
  timeval limit{kPatience.count(), 0};
  if (fd) ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  return Socket(std::move(fd));
}

void Socket::send(std::string_view text) const {
  while (!text.empty()) {
    ssize_t n = ::send(fd_.get(), text.data(), text.size(), MSG_NOSIGNAL);
    if (n <= 0) return;
    text.remove_prefix(static_cast<size_t>(n));
  }
}

void Socket::close_sending() const { ::shutdown(fd_.get(), SHUT_WR); }

std::string Socket::read_line() const {
  std::string line;
  char byte;
  while (::recv(fd_.get(), &byte, 1, 0) == 1) {
    line += byte;
    if (byte == '\n') break;
  }
  return line;
}

std::string Socket::read_bytes(size_t bytes) const {
  std::string data(bytes, '\0');
  size_t done = 0;
  while (done < bytes) {
    ssize_t n = ::recv(fd_.get(), data.data() + done, bytes - done, 0);
    if (n <= 0) break;
    done += static_cast<size_t>(n);
  }
  data.resize(done);
  return data;
}

}  // namespace linux_tests
