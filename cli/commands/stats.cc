// minivmm stats: the counters of a running machine.
#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "cli/commands/command.h"
#include "cli/commands/named_vm.h"
#include "cli/control_client.h"
#include "cli/exit_status.h"
#include "vmm/base/log.h"

namespace cli {
namespace {

using nlohmann::json;

// "disk0.reads   3": one line a counter.
void print_counters(const std::string& prefix, const json& value) {
  if (!value.is_structured()) {
    fmt::print("{:<40} {}\n", prefix, base::one_line(value.dump()));
    return;
  }
  for (const auto& [key, inner] : value.items()) {
    print_counters(prefix.empty() ? base::one_line(key) : prefix + "." + base::one_line(key),
                   inner);
  }
}

base::Result<int> stats(const std::string& name, bool as_json) {
  TRY_ASSIGN(RunningVm vm, find_vm(name));
  TRY_ASSIGN(std::string body, ask_or_fail(vm.socket, {"GET", "/stats", ""}));
  json counters = json::parse(body, nullptr, false);
  if (counters.is_discarded()) return base::fail(name + " does not answer with JSON");
  if (as_json) {
    fmt::print("{}\n", counters.dump(2));
  } else {
    print_counters("", counters);
  }
  return kSuccess;
}

}  // namespace

Command make_stats() {
  auto as_json = std::make_shared<bool>(false);
  auto syntax = std::make_unique<Syntax>("stats", "the counters of a running machine");
  auto name = add_vm_name(*syntax);
  syntax->flag("--json", *as_json, "for programs");
  syntax->footer("Examples:\n  minivmm stats job1\n  minivmm stats job1 --json | jq .disk0");
  return {std::move(syntax), [name, as_json] { return stats(*name, *as_json); }};
}

}  // namespace cli
