#include "cli/commands/command.h"

#include <algorithm>
#include <array>

namespace cli {

namespace {

struct Entry {
  std::string_view name;
  Command (*make)();
};

constexpr std::array kCommands = {
    Entry{"run", make_run},
    Entry{"snapshot", make_snapshot},
    Entry{"restore", make_restore},
    Entry{"ps", make_ps},
    Entry{"pause", make_pause},
    Entry{"resume", make_resume},
    Entry{"stop", make_stop},
    Entry{"stats", make_stats},
    Entry{"list", make_list},
    Entry{"inspect", make_inspect},
    Entry{"verify", make_verify},
    Entry{"diff", make_diff},
    Entry{"prune", make_prune},
    Entry{"export", make_export},
    Entry{"commit", make_commit},
    Entry{"doctor", make_doctor},
    Entry{"completion", make_completion},
};

}  // namespace

std::vector<Command> make_commands() {
  std::vector<Command> commands;
  commands.reserve(kCommands.size());
  for (const Entry& entry : kCommands) commands.push_back(entry.make());
  return commands;
}

std::optional<Command> make_command(std::string_view name) {
  const auto* found = std::ranges::find(kCommands, name, &Entry::name);
  if (found == kCommands.end()) return std::nullopt;
  return found->make();
}

}  // namespace cli
