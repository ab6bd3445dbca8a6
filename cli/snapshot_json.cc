#include "cli/snapshot_json.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "cli/duration.h"
#include "cli/size.h"
#include "cli/snapshot_options.h"

namespace cli {

using base::fail;
using base::Result;
using nlohmann::json;
using snapshot::Capture;
using snapshot::SnapshotService;

namespace {

constexpr uint64_t kMostPauseNs = 3600'000'000'000;

uint64_t number_of(const json& object, const char* name) {
  auto found = object.find(name);
  return found != object.end() && found->is_number_unsigned() ? found->get<uint64_t>() : 0;
}

std::string microseconds(uint64_t ns) { return format_duration(std::chrono::nanoseconds(ns)); }

}  // namespace

Result<SnapshotService::Request> parse_snapshot_request(const json& body) {
  if (!body.is_object()) return fail("the body must be a JSON object");
  SnapshotService::Request request;
  for (const auto& [name, value] : body.items()) {
    if (name == "snapshot_type" && (value == "Full" || value == "Diff")) {
      request.full = value == "Full";
    } else if (name == "snapshot_path" && value.is_string()) {
      request.store_path = value.get<std::string>();
    } else if (name == "max_pause_ns" && value.is_number_unsigned() && value <= kMostPauseNs) {
      request.max_pause_ns = value.get<uint64_t>();
    } else if (name == "on_hot" && value.is_string()) {
      TRY_ASSIGN(request.on_hot, parse_on_hot(value.get<std::string>()));
    } else if (name == "stop" && value.is_boolean()) {
      request.stop = value.get<bool>();
    } else {
      return fail(
          fmt::format("'{}' is no field of a snapshot request, or has no possible value", name));
    }
  }
  return request;
}

json snapshot_request_json(const SnapshotService::Request& request) {
  json body = {{"snapshot_type", request.full ? "Full" : "Diff"}, {"stop", request.stop}};
  if (!request.store_path.empty()) body["snapshot_path"] = request.store_path;
  if (request.max_pause_ns) body["max_pause_ns"] = *request.max_pause_ns;
  if (request.on_hot) {
    body["on_hot"] = *request.on_hot == Capture::OnHot::kStop ? "stop" : "throttle";
  }
  return body;
}

json outcome_json(const Capture::Outcome& outcome) {
  const auto& pause = outcome.pause;
  return {{"id", outcome.id.text()},
          {"kind", outcome.full ? "full" : "incremental"},
          {"pages", outcome.pages.data},
          {"zero_pages", outcome.pages.zero},
          {"unchanged_pages", outcome.pages.unchanged},
          {"copied_pages", outcome.pages.copied},
          {"rewritten_pages", outcome.pages.rewritten},
          {"bytes", outcome.bytes},
          {"rounds", outcome.rounds},
          {"residue_pages", outcome.residue},
          {"pause_ns", pause.total()},
          {"pause_steps_ns",
           {{"stop", pause.stop},
            {"barrier", pause.barrier},
            {"log", pause.log},
            {"stage", pause.stage},
            {"state", pause.state},
            {"run", pause.run}}},
          {"longest_clear_ns", outcome.longest_clear_ns},
          {"throttle_slices", outcome.slices},
          {"throttled_ns", outcome.held_ns},
          {"longest_throttle_ns", outcome.longest_hold_ns},
          {"staging_bytes", outcome.staging_bytes},
          {"total_ns", outcome.total_ns}};
}

namespace {

void add_end(json& value, const base::Result<snapshot::Capture::Outcome>& end) {
  if (end) {
    value["result"] = outcome_json(*end);
  } else {
    value["error"] = end.error().text();
  }
}

}  // namespace

json snapshot_status_json(const SnapshotService::Status& status) {
  json value = {
      {"number", status.number}, {"running", status.running}, {"store", status.store_path}};
  if (status.running) {
    value["progress"] = {{"round", status.round},           {"pages_left", status.pages_left},
                         {"copied_pages", status.copied},   {"written_bytes", status.written_bytes},
                         {"committing", status.committing}, {"elapsed_ms", status.elapsed_ms}};
  } else if (status.last) {
    add_end(value, *status.last);
  }
  value["previous"] = json::array();
  for (const auto& [number, outcome] : status.previous) {
    add_end(value["previous"].emplace_back(json{{"number", number}}), outcome);
  }
  return value;
}

std::string describe_progress(const json& status) {
  const auto found = status.find("progress");
  const json progress = found != status.end() && found->is_object() ? *found : json::object();
  const uint64_t written = number_of(progress, "written_bytes");
  const uint64_t elapsed_ms = std::max<uint64_t>(number_of(progress, "elapsed_ms"), 1);
  const auto committing = progress.find("committing");
  return fmt::format("round {}, {} pages left, {} copied, {} written, {:.0f} MB/s, {:.1f} s{}",
                     number_of(progress, "round"), number_of(progress, "pages_left"),
                     number_of(progress, "copied_pages"), format_size(written),
                     static_cast<double>(written) / 1e3 / static_cast<double>(elapsed_ms),
                     static_cast<double>(elapsed_ms) / 1e3,
                     committing != progress.end() && *committing == true ? ", committing" : "");
}

std::string describe_outcome(const json& result) {
  uint64_t total_ns = number_of(result, "total_ns");
  std::string text = fmt::format(
      "{}  {}  {} pages, {} written, pause {}, {} in all\n", result.value("id", ""),
      result.value("kind", ""), number_of(result, "pages"), format_size(number_of(result, "bytes")),
      microseconds(number_of(result, "pause_ns")), microseconds(total_ns));
  json steps = result.value("pause_steps_ns", json::object());
  text += fmt::format("  {} rounds; pause:", number_of(result, "rounds"));
  for (const char* step : {"stop", "barrier", "log", "stage", "state", "run"}) {
    text += fmt::format(" {} {}", step, microseconds(number_of(steps, step)));
  }
  text += fmt::format("; longest step outside {}\n",
                      microseconds(number_of(result, "longest_clear_ns")));
  if (uint64_t slices = number_of(result, "throttle_slices"); slices > 0) {
    text += fmt::format("  the guest writes fast: held {} times, {} in all, {} at most\n", slices,
                        microseconds(number_of(result, "throttled_ns")),
                        microseconds(number_of(result, "longest_throttle_ns")));
  }
  return text;
}

}  // namespace cli
