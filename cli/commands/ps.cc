// minivmm ps: the running machines of this user.
#include <fmt/format.h>

#include <cerrno>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/commands/command.h"
#include "cli/control_client.h"
#include "cli/exit_status.h"
#include "cli/runtime_dir.h"
#include "cli/size.h"
#include "cli/vm_registry.h"

namespace cli {
namespace {

using nlohmann::json;

struct PsOptions {
  bool as_json = false;
  bool names_only = false;
};

// A machine that does not answer is listed all the same: it may be busy. One that does not listen
// yet is still being made, or is a clone made ahead (`kill` lets it go).
std::string silent_state(const base::Error& error) {
  return error.os_error() == ECONNREFUSED ? "Not started" : "No answer";
}

json answer_of(const RunningVm& vm, const char* path) {
  auto body = ask_or_fail(vm.socket, {"GET", path, ""}, std::chrono::milliseconds(1000));
  if (!body) return {{"state", silent_state(body.error())}};
  json value = json::parse(*body, nullptr, false);
  return value.is_object() ? value : json::object();
}

json describe(const RunningVm& vm) {
  json config = answer_of(vm, "/machine-config");
  return {{"name", vm.name},
          {"pid", vm.pid},
          {"state", answer_of(vm, "/").value("state", "No answer")},
          {"vcpu_count", config.value("vcpu_count", 0)},
          {"mem_size_mib", config.value("mem_size_mib", 0)},
          {"api_socket", vm.socket}};
}

base::Result<int> ps(const PsOptions& options) {
  TRY_ASSIGN(auto vms, running_vms(runtime_dir_path()));
  if (options.names_only) {
    for (const RunningVm& vm : vms) fmt::print("{}\n", vm.name);
    return kSuccess;
  }
  json list = json::array();
  for (const RunningVm& vm : vms) list.push_back(describe(vm));
  if (options.as_json) {
    fmt::print("{}\n", list.dump(2));
    return kSuccess;
  }
  fmt::print("{:<20} {:>8} {:<10} {:>5} {:>9}\n", "NAME", "PID", "STATE", "VCPUS", "MEMORY");
  for (const json& vm : list) {
    fmt::print("{:<20} {:>8} {:<10} {:>5} {:>9}\n", vm["name"].get<std::string>(),
               vm["pid"].get<int>(), vm["state"].get<std::string>(), vm["vcpu_count"].get<int>(),
               format_size(vm["mem_size_mib"].get<uint64_t>() << 20));
  }
  return kSuccess;
}

}  // namespace

Command make_ps() {
  auto options = std::make_shared<PsOptions>();
  auto syntax = std::make_unique<Syntax>("ps", "list the running machines");
  Option& as_json = syntax->flag("--json", options->as_json, "for programs");
  syntax->flag("--quiet", options->names_only, "names only").short_name("-q").excludes(as_json);
  syntax->footer(R"(Examples:
  minivmm ps
  minivmm ps --json | jq -r '.[] | select(.state == "Paused") | .name')");
  return {std::move(syntax), [options] { return ps(*options); }};
}

}  // namespace cli
