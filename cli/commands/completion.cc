// minivmm completion: a shell's completion script, written from the parser's own tables, so that it
// knows every command and option there is.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <memory>
#include <string>
#include <vector>

#include "cli/commands/command.h"
#include "cli/exit_status.h"

namespace cli {
namespace {

// The words an option's value is chosen from: its type is written {a,b,c} in --help.
std::string choices_of(const CLI::Option& option) {
  std::string type = option.get_type_name();
  if (!type.starts_with('{') || !type.ends_with('}')) return "";
  type = type.substr(1, type.size() - 2);
  for (char& c : type) {
    if (c == ',') c = ' ';
  }
  return type;
}

bool takes_vm_name(const CLI::App& command) {
  return command.get_option_no_throw("NAME") != nullptr;
}

std::string options_of(const CLI::App& command) {
  std::vector<std::string> names;
  for (const CLI::Option* option : command.get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  }
  return fmt::format("{}", fmt::join(names, " "));
}

// case PREVIOUS in --option) COMPREPLY=(its choices) …
std::string values_of(const CLI::App& command) {
  std::string cases;
  for (const CLI::Option* option : command.get_options()) {
    if (option->get_lnames().empty() || option->get_expected_max() == 0) continue;
    std::string choices = choices_of(*option);
    std::string words = choices.empty() ? "-f" : fmt::format("-W '{}'", choices);
    cases += fmt::format("        {}:--{}) COMPREPLY=($(compgen {} -- \"$word\")); return ;;\n",
                         command.get_name(), option->get_lnames()[0], words);
  }
  return cases;
}

std::string bash_script(const CLI::App& root) {
  std::vector<std::string> commands;
  std::string values;
  std::string options;
  for (const CLI::App* command : root.get_subcommands([](const CLI::App*) { return true; })) {
    commands.push_back(command->get_name());
    values += values_of(*command);
    std::string words = fmt::format("'{}'", options_of(*command));
    if (takes_vm_name(*command)) words += "\" $(minivmm ps --quiet 2>/dev/null)\"";
    if (command->get_name() == "completion") words += "' bash'";
    options += fmt::format("        {}) words={} ;;\n", command->get_name(), words);
  }
  return fmt::format(R"(# bash completion of minivmm; source it, or put it into
# ~/.local/share/bash-completion/completions/minivmm
_minivmm() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD - 1]}} words
    # bash takes "--option=value" apart at the '='.
    if [[ $word == = ]]; then word=; fi
    if [[ $previous == = ]]; then previous=${{COMP_WORDS[COMP_CWORD - 2]}}; fi
    COMPREPLY=()
    if ((COMP_CWORD == 1)); then
        COMPREPLY=($(compgen -W '{} {}' -- "$word"))
        return
    fi
    case ${{COMP_WORDS[1]}}:$previous in
{}    esac
    case ${{COMP_WORDS[1]}} in
{}        *) return ;;
    esac
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -F _minivmm minivmm
)",
                     fmt::join(commands, " "), options_of(root), values, options);
}

base::Result<int> completion(const CLI::App& root, const std::string& shell) {
  if (shell != "bash")
    return base::fail(fmt::format("no completion for '{}': there is bash", shell));
  fmt::print("{}", bash_script(root));
  return kSuccess;
}

}  // namespace

Command add_completion(CLI::App& root) {
  auto shell = std::make_shared<std::string>();
  CLI::App* app = root.add_subcommand("completion", "print a completion script for a shell");
  app->add_option("SHELL", *shell, "bash")->required();
  app->footer("Example:\n  source <(minivmm completion bash)");
  return {app, [&root, shell] { return completion(root, *shell); }, kBadInput};
}

}  // namespace cli
