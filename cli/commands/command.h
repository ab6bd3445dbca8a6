// The commands of `minivmm`, one file each. A command adds itself to the parser and gives back
// what to do when it was chosen.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <vector>

#include "vmm/base/result.h"

namespace cli {

struct Command {
  CLI::App* app = nullptr;
  std::function<base::Result<int>()> run;  // the exit status of the process
  int failure_status = 1;                  // the exit status where run() gives an error
};

Command add_run(CLI::App& root);
Command add_ps(CLI::App& root);
Command add_snapshot(CLI::App& root);
Command add_restore(CLI::App& root);
Command add_pause(CLI::App& root);
Command add_resume(CLI::App& root);
Command add_stop(CLI::App& root);
Command add_stats(CLI::App& root);
Command add_list(CLI::App& root);
Command add_inspect(CLI::App& root);
Command add_verify(CLI::App& root);
Command add_diff(CLI::App& root);
Command add_prune(CLI::App& root);
Command add_export(CLI::App& root);
Command add_commit(CLI::App& root);
Command add_doctor(CLI::App& root);
Command add_completion(CLI::App& root);

// All of them, in the order of --help; or the one called `chosen` alone, where there is one that
// does not ask for the others: a restore is not to wait for the options of sixteen other commands.
std::vector<Command> add_commands(CLI::App& root, std::string_view chosen = {});

}  // namespace cli
