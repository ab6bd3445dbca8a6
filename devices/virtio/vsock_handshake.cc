#include "devices/virtio/vsock_handshake.h"

#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <string_view>

namespace virtio {
namespace {

constexpr std::string_view kCommand = "CONNECT ";
constexpr size_t kMaxLine = 32;  // "CONNECT 4294967295\r\n" is 20

}  // namespace

VsockHandshake::State VsockHandshake::read() {
  std::array<char, kMaxLine> bytes;
  ssize_t n = ::recv(socket_.get(), bytes.data(), bytes.size(), MSG_PEEK | MSG_DONTWAIT);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return State::kIncomplete;
  if (n <= 0) return State::kRefused;
  auto* end = bytes.data() + n;
  auto* newline = std::find(bytes.data(), end, '\n');
  auto take = static_cast<size_t>((newline == end ? end : newline + 1) - bytes.data());
  if (::recv(socket_.get(), bytes.data(), take, MSG_DONTWAIT) != static_cast<ssize_t>(take)) {
    return State::kRefused;
  }
  line_.append(bytes.data(), take);
  if (line_.size() > kMaxLine) return State::kRefused;
  return newline == end ? State::kIncomplete : parse();
}

VsockHandshake::State VsockHandshake::parse() {
  std::string_view line = line_;
  line.remove_suffix(1);
  if (line.ends_with('\r')) line.remove_suffix(1);
  if (!line.starts_with(kCommand)) return State::kRefused;
  line.remove_prefix(kCommand.size());
  auto [end, error] = std::from_chars(line.begin(), line.end(), port_);
  if (error != std::errc() || end != line.end()) return State::kRefused;
  return State::kDone;
}

}  // namespace virtio
