#include "cli/commands/command.h"

namespace cli {

std::vector<Command> add_commands(CLI::App& root) {
  std::vector<Command> commands;
  commands.push_back(add_run(root));
  return commands;
}

}  // namespace cli
