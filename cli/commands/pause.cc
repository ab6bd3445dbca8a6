// minivmm pause, minivmm resume: stops the vCPUs of a machine, and lets them go on.
#include <fmt/format.h>

#include <memory>

#include "cli/commands/command.h"
#include "cli/commands/named_vm.h"
#include "cli/control_client.h"
#include "cli/exit_status.h"

namespace cli {
namespace {

Command make_state_command(const char* name, const char* description, const char* state,
                           const char* footer) {
  auto syntax = std::make_unique<Syntax>(name, description);
  auto vm_name = add_vm_name(*syntax);
  syntax->footer(footer);
  auto run = [vm_name, state]() -> base::Result<int> {
    TRY_ASSIGN(RunningVm vm, find_vm(*vm_name));
    TRY(ask_or_fail(vm.socket, {"PATCH", "/vm", fmt::format(R"({{"state":"{}"}})", state)}));
    return kSuccess;
  };
  return {std::move(syntax), run};
}

}  // namespace

Command make_pause() {
  return make_state_command("pause", "stop the vCPUs of a machine, keep everything", "Paused",
                            "Example:\n  minivmm pause job1");
}

Command make_resume() {
  return make_state_command("resume", "let a paused machine go on", "Resumed",
                            "Example:\n  minivmm resume job1");
}

}  // namespace cli
