#include "cli/commands/command.h"

#include <algorithm>
#include <array>

namespace cli {

namespace {

struct Entry {
  std::string_view name;
  Command (*add)(CLI::App& root);
  bool of_all = false;  // it reads what the others have added
};

constexpr std::array kCommands = {
    Entry{"run", add_run},
    Entry{"snapshot", add_snapshot},
    Entry{"restore", add_restore},
    Entry{"ps", add_ps},
    Entry{"pause", add_pause},
    Entry{"resume", add_resume},
    Entry{"stop", add_stop},
    Entry{"stats", add_stats},
    Entry{"list", add_list},
    Entry{"inspect", add_inspect},
    Entry{"verify", add_verify},
    Entry{"diff", add_diff},
    Entry{"prune", add_prune},
    Entry{"export", add_export},
    Entry{"commit", add_commit},
    Entry{"doctor", add_doctor},
    Entry{"completion", add_completion, true},
};

}  // namespace

std::vector<Command> add_commands(CLI::App& root, std::string_view chosen) {
  const auto* found = std::ranges::find(kCommands, chosen, &Entry::name);
  if (found != kCommands.end() && !found->of_all) return {found->add(root)};
  std::vector<Command> commands;
  commands.reserve(kCommands.size());
  for (const Entry& entry : kCommands) commands.push_back(entry.add(root));
  return commands;
}

}  // namespace cli
