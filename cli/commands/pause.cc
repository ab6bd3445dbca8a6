// minivmm pause, minivmm resume: stops the vCPUs of a machine, and lets them go on.
#include <fmt/format.h>

#include <memory>

#include "cli/commands/command.h"
#include "cli/commands/named_vm.h"
#include "cli/control_client.h"
#include "cli/exit_status.h"

namespace cli {
namespace {

Command add_state_command(CLI::App& root, const char* name, const char* description,
                          const char* state, const char* footer) {
  CLI::App* app = root.add_subcommand(name, description);
  auto vm_name = add_vm_name(*app);
  app->footer(footer);
  auto run = [vm_name, state]() -> base::Result<int> {
    TRY_ASSIGN(RunningVm vm, find_vm(*vm_name));
    TRY(ask_or_fail(vm.socket, {"PATCH", "/vm", fmt::format(R"({{"state":"{}"}})", state)}));
    return kSuccess;
  };
  return {app, run};
}

}  // namespace

Command add_pause(CLI::App& root) {
  return add_state_command(root, "pause", "stop the vCPUs of a machine, keep everything", "Paused",
                           "Example:\n  minivmm pause job1");
}

Command add_resume(CLI::App& root) {
  return add_state_command(root, "resume", "let a paused machine go on", "Resumed",
                           "Example:\n  minivmm resume job1");
}

}  // namespace cli
