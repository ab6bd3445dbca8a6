#include "cli/control_client.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <boost/asio/buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <cerrno>
#include <nlohmann/json.hpp>
#include <thread>

#include "vmm/base/fd.h"
#include "vmm/base/unix_socket.h"

namespace cli {
namespace {

namespace http = boost::beast::http;
using Clock = std::chrono::steady_clock;

constexpr uint64_t kMaxAnswerBytes = 16 << 20;

class Deadline {
 public:
  explicit Deadline(std::chrono::milliseconds timeout) : end_(Clock::now() + timeout) {}
  bool passed() const { return Clock::now() >= end_; }
  // False where the time is over first.
  bool wait(int fd, short events) const {
    for (;;) {
      auto left = std::chrono::ceil<std::chrono::milliseconds>(end_ - Clock::now()).count();
      pollfd polled{fd, events, 0};
      int ready = ::poll(&polled, 1, static_cast<int>(std::max<int64_t>(left, 0)));
      if (ready >= 0 || errno != EINTR) return ready > 0;
    }
  }

 private:
  Clock::time_point end_;
};

base::Result<base::Fd> connect(const std::string& path, const Deadline& deadline) {
  for (;;) {
    auto socket = base::connect_unix(path);
    // EAGAIN: more clients wait than the listener's queue holds.
    if (socket || socket.error().os_error() != EAGAIN || deadline.passed()) return socket;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
}

base::Result<void> send_all(int fd, std::string_view bytes, const Deadline& deadline) {
  while (!bytes.empty()) {
    ssize_t count = ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (count >= 0) {
      bytes.remove_prefix(static_cast<size_t>(count));
    } else if (errno == EAGAIN) {
      if (!deadline.wait(fd, POLLOUT)) return base::fail("the machine takes no request");
    } else if (errno != EINTR) {
      return base::fail_errno("send");
    }
  }
  return {};
}

base::Result<ControlResponse> read_response(int fd, const Deadline& deadline) {
  http::response_parser<http::string_body> parser;
  parser.body_limit(kMaxAnswerBytes);
  parser.eager(true);
  std::string input;
  std::array<char, 4096> chunk;
  while (!parser.is_done()) {
    if (!deadline.wait(fd, POLLIN)) return base::fail("the machine does not answer");
    ssize_t count = ::recv(fd, chunk.data(), chunk.size(), 0);
    if (count < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (count < 0) return base::fail_errno("receive");
    if (count == 0) return base::fail("the machine ended before it answered", ECONNRESET);
    input.append(chunk.data(), static_cast<size_t>(count));
    boost::system::error_code error;
    size_t taken = parser.put(boost::asio::buffer(input), error);
    input.erase(0, taken);
    if (error && error != http::error::need_more) {
      return base::fail("the answer is no HTTP: " + error.message());
    }
  }
  return ControlResponse{static_cast<int>(parser.get().result_int()), parser.get().body()};
}

base::Result<ControlResponse> converse(const std::string& socket_path,
                                       const ControlRequest& request, const Deadline& deadline) {
  TRY_ASSIGN(base::Fd socket, connect(socket_path, deadline));
  std::string text = fmt::format(
      "{} {} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{}",
      request.method, request.path, request.body.size(), request.body);
  TRY(send_all(socket.get(), text, deadline));
  return read_response(socket.get(), deadline);
}

}  // namespace

base::Result<ControlResponse> ask(const std::string& socket_path, const ControlRequest& request,
                                  std::chrono::milliseconds timeout) {
  auto response = converse(socket_path, request, Deadline(timeout));
  if (response) return response;
  base::Error error = response.error().with("control socket " + socket_path);
  if (error.os_error() == ECONNREFUSED) {
    error = error.with(
        "the machine has not started yet, or is ending (a clone made ahead is let go by kill and "
        "its PID, see minivmm ps)");
  }
  return std::unexpected(error);
}

base::Result<std::string> ask_or_fail(const std::string& socket_path, const ControlRequest& request,
                                      std::chrono::milliseconds timeout) {
  TRY_ASSIGN(ControlResponse response, ask(socket_path, request, timeout));
  if (response.status < 300) return response.body;
  auto body = nlohmann::json::parse(response.body, nullptr, false);
  if (body.is_object() && body.contains("fault_message") && body["fault_message"].is_string()) {
    return base::fail(body["fault_message"].get<std::string>());
  }
  return base::fail(fmt::format("{} {}: status {}", request.method, request.path, response.status));
}

}  // namespace cli
