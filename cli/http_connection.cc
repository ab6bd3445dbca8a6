#include "cli/http_connection.h"

#include <fmt/format.h>

#include <boost/asio/buffer.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/status.hpp>
#include <boost/beast/http/string_body.hpp>

namespace cli {

namespace http = boost::beast::http;

struct HttpConnection::Parser {
  http::request_parser<http::string_body> http;

  Parser() {
    http.header_limit(kMaxHeaderBytes);
    http.body_limit(kMaxBodyBytes);
    http.eager(true);
  }
};

HttpConnection::HttpConnection(Handler handler)
    : handler_(std::move(handler)), parser_(std::make_unique<Parser>()) {}
HttpConnection::~HttpConnection() = default;

void HttpConnection::receive(std::string_view bytes, std::string& output) {
  input_ += bytes;
  while (!closing_ && !input_.empty()) {
    auto& parser = parser_->http;
    boost::system::error_code error;
    size_t taken = parser.put(boost::asio::buffer(input_), error);
    input_.erase(0, taken);
    begun_ = begun_ || taken > 0;
    if (error == http::error::need_more) return;
    if (error) {
      int status = error == http::error::body_limit ? 413 : 400;
      respond(fault(status, "bad HTTP request: " + error.message()), false, output);
      return;
    }
    if (!parser.is_done()) continue;
    const auto& request = parser.get();
    ControlResponse response = handler_(
        {std::string(request.method_string()), std::string(request.target()), request.body()});
    const bool only_head = request.method() == http::verb::head;
    respond(response, parser.keep_alive(), output);
    if (only_head) output.resize(output.size() - response.body.size());  // RFC 9110, 9.3.2
    parser_ = std::make_unique<Parser>();
    begun_ = false;
  }
}

void HttpConnection::respond(const ControlResponse& response, bool keep_alive,
                             std::string& output) {
  closing_ = !keep_alive;
  auto reason = http::obsolete_reason(static_cast<http::status>(response.status));
  output += fmt::format("HTTP/1.1 {} {}\r\nServer: minivmm\r\n", response.status,
                        std::string_view(reason.data(), reason.size()));
  if (closing_) output += "Connection: close\r\n";
  // A 204 has neither a body nor a length (RFC 9110, 8.6).
  if (response.status != 204) {
    output += fmt::format("Content-Type: application/json\r\nContent-Length: {}\r\n",
                          response.body.size());
  }
  output += "\r\n";
  if (response.status != 204) output += response.body;
}

}  // namespace cli
