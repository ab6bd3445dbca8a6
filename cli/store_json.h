// What the commands on a store print for programs. Text out of a store may be no UTF-8, and a
// configuration may be nested without end: neither may stop a command.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "snapshot/store/store.h"

namespace cli {

// To stdout, with an end of line; what is no UTF-8 is replaced.
void print_json(const nlohmann::json& value);

// A machine's configuration as a snapshot has it; null where it is no JSON, or nested deeper than
// any configuration is.
nlohmann::json parse_config(std::string_view text);

nlohmann::json snapshot_info_json(const snapshot::SnapshotInfo& info);

// "full", "incremental".
const char* kind_name(snapshot::Kind kind);

// A list of their texts.
nlohmann::json ids_json(const std::vector<snapshot::Id>& ids);

}  // namespace cli
