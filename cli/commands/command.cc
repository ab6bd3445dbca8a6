#include "cli/commands/command.h"

namespace cli {

std::vector<Command> add_commands(CLI::App& root) {
  return {add_run(root),       add_snapshot(root), add_restore(root), add_ps(root),
          add_pause(root),     add_resume(root),   add_stop(root),    add_stats(root),
          add_list(root),      add_inspect(root),  add_verify(root),  add_diff(root),
          add_prune(root),     add_export(root),   add_commit(root),  add_doctor(root),
          add_completion(root)};
}

}  // namespace cli
