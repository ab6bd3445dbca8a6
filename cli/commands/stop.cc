// minivmm stop: the power button, and waiting for the machine to end; --force ends it at once.
#include <fmt/format.h>

#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>
#include <thread>

#include "cli/commands/command.h"
#include "cli/commands/named_vm.h"
#include "cli/control_client.h"
#include "cli/exit_status.h"
#include "cli/runtime_dir.h"
#include "cli/size.h"
#include "cli/syntax.h"

namespace cli {
namespace {

struct StopOptions {
  bool force = false;
  uint64_t timeout_s = 30;
};

constexpr std::chrono::milliseconds kLook{20}, kEnding{1000};

base::Result<uint64_t> parse_timeout(std::string_view text) { return parse_number(text, 0, 86400); }

bool is_paused(const RunningVm& vm) {
  auto body = ask_or_fail(vm.socket, {"GET", "/", ""});
  if (!body) return false;
  auto answer = nlohmann::json::parse(*body, nullptr, false);
  return answer.is_object() && answer.value("state", "") == "Paused";
}

base::Result<int> stop(const std::string& name, const StopOptions& options) {
  TRY_ASSIGN(RunningVm vm, find_vm(name));
  ControlRequest request =
      options.force ? ControlRequest{"PUT", "/stop", ""}
                    : ControlRequest{"PUT", "/actions", R"({"action_type":"SendCtrlAltDel"})"};
  if (auto answer = ask_or_fail(vm.socket, request); !answer) {
    // A machine that ended meanwhile is what was wanted.
    if (ended(name, answer.error())) return kSuccess;
    return std::unexpected(answer.error());
  }
  const auto begin = std::chrono::steady_clock::now();
  const auto end = begin + std::chrono::seconds(options.timeout_s);
  bool asked = false;
  while (vm_runs(runtime_dir_path(), name)) {
    if (options.timeout_s == 0) return kSuccess;
    // Asked once, and late: one that has just ended says that it is paused for a moment.
    const bool ask =
        !options.force && !asked && std::chrono::steady_clock::now() >= begin + kEnding;
    asked = asked || ask;
    if (ask && is_paused(vm)) {
      return base::fail(
          fmt::format("{} is paused and does not see its power button before it goes on: minivmm "
                      "resume {}, or end it at once: minivmm stop --force {}",
                      name, name, name));
    }
    if (std::chrono::steady_clock::now() >= end) {
      return base::fail(
          fmt::format("{} still runs after {} s: wait with a longer --timeout, or "
                      "end it at once: minivmm stop --force {}",
                      name, options.timeout_s, name));
    }
    std::this_thread::sleep_for(kLook);
  }
  return kSuccess;
}

}  // namespace

Command make_stop() {
  auto options = std::make_shared<StopOptions>();
  auto syntax = std::make_unique<Syntax>("stop", "press the power button of a machine and wait");
  auto name = add_vm_name(*syntax);
  syntax->flag("--force", options->force, "end it at once, as if the power was cut");
  syntax->option("--timeout", options->timeout_s, parse_timeout,
                 "seconds to wait for its end, default 30; 0: do not wait", "S");
  syntax->footer(R"(Examples:
  minivmm stop job1
  minivmm stop job1 --timeout 300 || minivmm stop job1 --force)");
  return {std::move(syntax), [name, options] { return stop(*name, *options); }};
}

}  // namespace cli
