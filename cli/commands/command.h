// The commands of `minivmm`, one file each: what it takes, and what to do when it was chosen.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "cli/syntax.h"
#include "vmm/base/result.h"

namespace cli {

struct Command {
  std::unique_ptr<Syntax> syntax;
  std::function<base::Result<int>()> run;  // the exit status of the process
  int failure_status = 1;                  // the exit status where run() gives an error
};

Command make_run();
Command make_ps();
Command make_snapshot();
Command make_restore();
Command make_pause();
Command make_resume();
Command make_stop();
Command make_stats();
Command make_list();
Command make_inspect();
Command make_verify();
Command make_diff();
Command make_prune();
Command make_export();
Command make_commit();
Command make_doctor();
Command make_completion();

// All of them, in the order of --help.
std::vector<Command> make_commands();
// The one of that name, nothing where there is none: a restore is not to wait for the options of
// sixteen other commands.
std::optional<Command> make_command(std::string_view name);

}  // namespace cli
