// Requests for snapshots, their progress and their results as the control API has them
// (docs/openapi.yaml: /snapshots), and a result as `minivmm snapshot` prints it.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "snapshot/service.h"
#include "vmm/base/result.h"

namespace cli {

base::Result<snapshot::SnapshotService::Request> parse_snapshot_request(const nlohmann::json& body);
nlohmann::json snapshot_request_json(const snapshot::SnapshotService::Request& request);
// {"number", "running", "store", then "progress" while it runs, "result" or "error" after it}.
nlohmann::json snapshot_status_json(const snapshot::SnapshotService::Status& status);
nlohmann::json outcome_json(const snapshot::Capture::Outcome& outcome);

// For a person, while it runs: one line without an end, from snapshot_status_json()'s object;
// whatever is missing there is 0.
std::string describe_progress(const nlohmann::json& status);
// One or two lines for a person, from outcome_json()'s object.
std::string describe_outcome(const nlohmann::json& result);

}  // namespace cli
