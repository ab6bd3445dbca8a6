#include "cli/store_json.h"

#include <fmt/format.h>

namespace cli {

using nlohmann::json;

void print_json(const json& value) {
  fmt::print("{}\n", value.dump(2, ' ', false, json::error_handler_t::replace));
}

json parse_config(std::string_view text) {
  // Writing JSON recurses. Brackets inside strings are counted as well, which refuses no
  // configuration that anybody has.
  constexpr unsigned kDeepest = 64;
  unsigned depth = 0;
  for (char c : text) {
    if (c == '[' || c == '{') ++depth;
    if ((c == ']' || c == '}') && depth > 0) --depth;
    if (depth > kDeepest) return nullptr;
  }
  json config = json::parse(text, nullptr, false);
  return config.is_discarded() ? json() : config;
}

const char* kind_name(snapshot::Kind kind) {
  return kind == snapshot::Kind::kFull ? "full" : "incremental";
}

json snapshot_info_json(const snapshot::SnapshotInfo& info) {
  json row = {{"id", info.id.text()}};
  if (!info.damage.empty()) {
    row["damage"] = info.damage;
    return row;
  }
  row["parent"] = info.parent ? json(info.parent->text()) : json();
  row["branch"] = info.branch.text();
  row["vm_name"] = info.vm_name;
  row["kind"] = kind_name(info.kind);
  row["time_ns"] = info.time_ns;
  row["pause_ns"] = info.pause_ns;
  row["ram_pages"] = info.ram_pages;
  row["disk_pages"] = info.disk_pages;
  row["zero_pages"] = info.zero_pages;
  row["bytes"] = info.bytes;
  return row;
}

json ids_json(const std::vector<snapshot::Id>& ids) {
  json list = json::array();
  for (const snapshot::Id& id : ids) list.push_back(id.text());
  return list;
}

}  // namespace cli
