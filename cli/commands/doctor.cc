// minivmm doctor: what this host can and cannot do, and what to do about it.
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/commands/command.h"
#include "cli/exit_status.h"
#include "cli/host_checks.h"

namespace cli {
namespace {

void print_text(const std::vector<HostCheck>& checks) {
  for (const HostCheck& check : checks) {
    fmt::print("{:<8} {:<13} {}\n", state_name(check.state), check.name, check.found);
    if (!check.advice.empty()) fmt::print("{:<22} -> {}\n", "", check.advice);
  }
}

void print_checks_json(const vmm::KvmProbe& kvm, const std::vector<HostCheck>& checks) {
  nlohmann::json list = nlohmann::json::array();
  for (const HostCheck& check : checks) {
    list.push_back({{"name", check.name},
                    {"state", state_name(check.state)},
                    {"found", check.found},
                    {"advice", check.advice}});
  }
  nlohmann::json report = {{"ring0", ring0_name(kvm.ring0)},
                           {"instructions_per_second", kvm.instructions_per_second},
                           {"dirty_ring", kvm.dirty_ring},
                           {"checks", list}};
  fmt::print("{}\n", report.dump(2, ' ', false, nlohmann::json::error_handler_t::replace));
}

int doctor(bool as_json) {
  vmm::KvmProbe kvm = vmm::probe_kvm();
  std::vector<HostCheck> checks = check_host(kvm);
  if (as_json) {
    print_checks_json(kvm, checks);
  } else {
    print_text(checks);
  }
  bool missing = std::ranges::any_of(
      checks, [](const HostCheck& check) { return check.state == HostCheck::State::kMissing; });
  return missing ? kFailure : kSuccess;
}

}  // namespace

Command make_doctor() {
  auto as_json = std::make_shared<bool>(false);
  auto syntax =
      std::make_unique<Syntax>("doctor", "say what this host can and cannot do, and what to do");
  syntax->flag("--json", *as_json, "for programs");
  syntax->footer(R"(Examples:
  minivmm doctor
  minivmm doctor --json | jq -r .ring0      # hardware, emulated or absent

Exit status: 0 machines can run, 1 they cannot.)");
  return {std::move(syntax), [as_json]() -> base::Result<int> { return doctor(*as_json); }};
}

}  // namespace cli
