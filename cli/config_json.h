// A machine's configuration in the form of Firecracker's API (GET /machine-config, GET /vm/config).
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "cli/run_options.h"

namespace cli {

nlohmann::json machine_config_json(const RunOptions& options);
nlohmann::json vm_config_json(const RunOptions& options);

}  // namespace cli
