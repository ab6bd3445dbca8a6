// minivmm completion: a shell's completion script, written from the parser's own tables, so that it
// knows every command and option there is.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "cli/commands/command.h"
#include "cli/exit_status.h"

namespace cli {
namespace {

// The words an option's value is chosen from: it is written {a,b,c} in --help.
std::string choices_of(const Option& option) {
  std::string type(option.value_name());
  if (!type.starts_with('{') || !type.ends_with('}')) return "";
  type = type.substr(1, type.size() - 2);
  for (char& c : type) {
    if (c == ',') c = ' ';
  }
  return type;
}

bool takes_vm_name(const Syntax& command) {
  return std::ranges::any_of(command.arguments(),
                             [](const Option& argument) { return argument.name() == "NAME"; });
}

std::string options_of(const Syntax& command) {
  std::vector<std::string_view> names = {"--help"};
  for (const Option& option : command.options()) names.push_back(option.name());
  return fmt::format("{}", fmt::join(names, " "));
}

// case PREVIOUS in --option) COMPREPLY=(its choices) …
std::string values_of(const Syntax& command) {
  std::string cases;
  for (const Option& option : command.options()) {
    if (option.value_name().empty()) continue;
    std::string choices = choices_of(option);
    std::string words = choices.empty() ? "-f" : fmt::format("-W '{}'", choices);
    cases += fmt::format("        {}:{}) COMPREPLY=($(compgen {} -- \"$word\")); return ;;\n",
                         command.name(), option.name(), words);
  }
  return cases;
}

std::string bash_script() {
  std::vector<std::string> names;
  std::string values;
  std::string options;
  for (const Command& entry : make_commands()) {
    const Syntax& command = *entry.syntax;
    names.emplace_back(command.name());
    values += values_of(command);
    std::string words = fmt::format("'{}'", options_of(command));
    if (takes_vm_name(command)) words += "\" $(minivmm ps --quiet 2>/dev/null)\"";
    if (command.name() == "completion") words += "' bash'";
    options += fmt::format("        {}) words={} ;;\n", command.name(), words);
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
                     fmt::join(names, " "), "--help --version", values, options);
}

base::Result<int> completion(const std::string& shell) {
  if (shell != "bash")
    return base::fail(fmt::format("no completion for '{}': there is bash", shell));
  fmt::print("{}", bash_script());
  return kSuccess;
}

}  // namespace

Command make_completion() {
  auto shell = std::make_shared<std::string>();
  auto syntax = std::make_unique<Syntax>("completion", "print a completion script for a shell");
  syntax->argument("SHELL", *shell, "bash");
  syntax->footer("Example:\n  source <(minivmm completion bash)");
  return {std::move(syntax), [shell] { return completion(*shell); }, kBadInput};
}

}  // namespace cli
