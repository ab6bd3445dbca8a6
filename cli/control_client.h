// Asks a running machine something over its control socket. Blocking, with a deadline; used by the
// client commands on the main thread.
#pragma once

#include <chrono>
#include <string>

#include "cli/control_routes.h"
#include "vmm/base/result.h"

namespace cli {

inline constexpr std::chrono::milliseconds kControlTimeout{10000};

// The answer, whatever its status. Errors: nobody listens (os_error() ECONNREFUSED or ENOENT), no
// answer in time, no HTTP.
base::Result<ControlResponse> ask(const std::string& socket_path, const ControlRequest& request,
                                  std::chrono::milliseconds timeout = kControlTimeout);

// The body of a good answer; a fault is an error with its message.
base::Result<std::string> ask_or_fail(const std::string& socket_path, const ControlRequest& request,
                                      std::chrono::milliseconds timeout = kControlTimeout);

}  // namespace cli
