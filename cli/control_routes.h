// The control API: which method on which path does what (docs/openapi.yaml). Paths, fields and
// status codes that Firecracker has are the same here; errors are {"fault_message": "…"}.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "cli/control_target.h"

namespace cli {

struct ControlRequest {
  std::string method;
  std::string path;
  std::string body;
};

struct ControlResponse {
  int status = 204;
  std::string body;  // JSON; empty with status 204
};

struct Route {
  std::string_view method;
  std::string_view path;
  ControlResponse (*handle)(ControlTarget& target, const std::string& body);
};

// All there are; a test compares them with the OpenAPI file.
std::span<const Route> control_routes();

ControlResponse handle_request(ControlTarget& target, const ControlRequest& request);

// {"fault_message": text}
ControlResponse fault(int status, const std::string& text);

}  // namespace cli
