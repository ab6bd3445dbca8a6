#include "cli/control_routes.h"

#include <fmt/format.h>

#include <array>
#include <functional>
#include <nlohmann/json.hpp>

#include "cli/config_json.h"
#include "cli/snapshot_json.h"
#include "cli/version.h"

namespace cli {
namespace {

using nlohmann::json;

constexpr int kBadRequest = 400;
constexpr uint64_t kPageBytes = 4096;

// Guests and files are quoted in places: what is no UTF-8 is replaced, never thrown about.
std::string text_of(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

ControlResponse ok(const json& value) { return {200, text_of(value)}; }
ControlResponse done(const base::Result<void>& result) {
  return result ? ControlResponse{} : fault(kBadRequest, result.error().text());
}

// Calls `use` with the one field `name` of a body {"name": …}; anything else in it is an error.
ControlResponse with_field(const std::string& body, const char* name,
                           const std::function<ControlResponse(const json& value)>& use) {
  json parsed = json::parse(body, nullptr, false);
  if (!parsed.is_object() || parsed.size() != 1 || !parsed.contains(name)) {
    return fault(kBadRequest,
                 fmt::format("the body must be a JSON object with the field {}", name));
  }
  return use(parsed[name]);
}

ControlResponse get_instance(ControlTarget& target, const std::string&) {
  return ok({{"app_name", "minivmm"},
             {"id", target.options().name},
             {"state", target.paused() ? "Paused" : "Running"},
             {"vmm_version", kVersion}});
}

ControlResponse get_version(ControlTarget&, const std::string&) {
  // The field is what Firecracker's clients look for; the version is ours.
  return ok({{"firecracker_version", kVersion}});
}

ControlResponse get_machine_config(ControlTarget& target, const std::string&) {
  return ok(machine_config_json(target.options()));
}

ControlResponse get_vm_config(ControlTarget& target, const std::string&) {
  return ok(vm_config_json(target.options()));
}

ControlResponse patch_vm(ControlTarget& target, const std::string& body) {
  return with_field(body, "state", [&](const json& state) {
    if (state == "Paused") return done(target.pause());
    if (state == "Resumed") return done(target.resume());
    return fault(kBadRequest, "state must be Paused or Resumed");
  });
}

ControlResponse put_actions(ControlTarget& target, const std::string& body) {
  return with_field(body, "action_type", [&](const json& action) {
    if (action != "SendCtrlAltDel") {
      return fault(kBadRequest, "action_type must be SendCtrlAltDel: the machine runs already");
    }
    target.power_button();
    return ControlResponse{};
  });
}

ControlResponse put_stop(ControlTarget& target, const std::string&) {
  target.stop();
  return {};
}

ControlResponse get_stats(ControlTarget& target, const std::string&) { return ok(target.stats()); }

ControlResponse no_balloon() {
  return fault(kBadRequest, "the machine has no balloon: start it with --balloon");
}

ControlResponse get_balloon(ControlTarget& target, const std::string&) {
  auto balloon = target.balloon();
  if (!balloon) return no_balloon();
  return ok({{"amount_mib", balloon->target_bytes >> 20},
             {"deflate_on_oom", true},
             {"stats_polling_interval_s", 0}});
}

ControlResponse patch_balloon(ControlTarget& target, const std::string& body) {
  return with_field(body, "amount_mib", [&](const json& amount) {
    if (!target.balloon()) return no_balloon();
    uint64_t most_mib = target.options().memory_bytes >> 20;
    if (!amount.is_number_unsigned() || amount.get<uint64_t>() > most_mib) {
      return fault(kBadRequest, fmt::format("amount_mib must be 0 to {}", most_mib));
    }
    return done(target.set_balloon(amount.get<uint64_t>() << 20));
  });
}

ControlResponse get_balloon_statistics(ControlTarget& target, const std::string&) {
  auto balloon = target.balloon();
  if (!balloon) return no_balloon();
  json statistics = balloon->guest;
  if (statistics.is_null()) statistics = json::object();
  statistics["target_pages"] = balloon->target_bytes / kPageBytes;
  statistics["actual_pages"] = balloon->actual_bytes / kPageBytes;
  statistics["target_mib"] = balloon->target_bytes >> 20;
  statistics["actual_mib"] = balloon->actual_bytes >> 20;
  return ok(statistics);
}

// PUT /snapshots: every field may be left out; the answer comes at once.
ControlResponse put_snapshots(ControlTarget& target, const std::string& body) {
  json parsed = body.empty() ? json::object() : json::parse(body, nullptr, false);
  auto request = parse_snapshot_request(parsed);
  if (!request) return fault(kBadRequest, request.error().text());
  auto number = target.begin_snapshot(*request);
  if (!number) return fault(kBadRequest, number.error().text());
  return {202, text_of({{"number", *number}})};
}

ControlResponse get_snapshots(ControlTarget& target, const std::string&) {
  return ok(snapshot_status_json(target.snapshot_status()));
}

ControlResponse delete_snapshots(ControlTarget& target, const std::string&) {
  target.cancel_snapshot();
  return {};
}

constexpr std::array kRoutes{
    Route{"GET", "/", get_instance},
    Route{"GET", "/version", get_version},
    Route{"GET", "/machine-config", get_machine_config},
    Route{"GET", "/vm/config", get_vm_config},
    Route{"PATCH", "/vm", patch_vm},
    Route{"PUT", "/actions", put_actions},
    Route{"GET", "/balloon", get_balloon},
    Route{"PATCH", "/balloon", patch_balloon},
    Route{"GET", "/balloon/statistics", get_balloon_statistics},
    Route{"GET", "/stats", get_stats},
    Route{"PUT", "/stop", put_stop},
    Route{"PUT", "/snapshots", put_snapshots},
    Route{"GET", "/snapshots", get_snapshots},
    Route{"DELETE", "/snapshots", delete_snapshots},
};

}  // namespace

std::span<const Route> control_routes() { return kRoutes; }

ControlResponse handle_request(ControlTarget& target, const ControlRequest& request) {
  for (const Route& route : kRoutes) {
    if (route.method == request.method && route.path == request.path) {
      return route.handle(target, request.body);
    }
  }
  return fault(kBadRequest, fmt::format("Invalid request method and/or path: {} {}.",
                                        request.method, request.path));
}

ControlResponse fault(int status, const std::string& text) {
  return {status, text_of({{"fault_message", text}})};
}

}  // namespace cli
