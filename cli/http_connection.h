// One client's HTTP/1.1 conversation, bytes in and bytes out, without a socket: requests are
// parsed by Boost.Beast and bounded, each is answered by the handler in the order they came.
//
// Beast because Debian's cpp-httplib is a shared library that brings OpenSSL: it makes the start of
// the process 7 ms instead of 1. Owned by the control server, used on its thread.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "cli/control_routes.h"

namespace cli {

class HttpConnection {
 public:
  static constexpr uint32_t kMaxHeaderBytes = 8 * 1024;
  static constexpr uint64_t kMaxBodyBytes = 51200;  // Firecracker's limit

  using Handler = std::function<ControlResponse(const ControlRequest&)>;

  explicit HttpConnection(Handler handler);
  ~HttpConnection();

  // Takes bytes from the client and appends the answers to what they complete to `output`.
  void receive(std::string_view bytes, std::string& output);
  // No more requests are taken: close when the output is sent.
  bool closing() const { return closing_; }
  // Between two requests: nothing of the next one has come.
  bool idle() const { return input_.empty() && !begun_; }

 private:
  struct Parser;

  void respond(const ControlResponse& response, bool keep_alive, std::string& output);

  Handler handler_;
  std::unique_ptr<Parser> parser_;
  std::string input_;   // not yet parsed: at most one header, and what came with it
  bool begun_ = false;  // the parser has taken a part of a request
  bool closing_ = false;
};

}  // namespace cli
