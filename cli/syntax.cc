#include "cli/syntax.h"

#include <fmt/format.h>

namespace cli {

using base::fail;
using base::Result;

namespace {

constexpr size_t kIndent = 30;  // of descriptions in --help

bool asks_for_help(std::string_view word) { return word == "-h" || word == "--help"; }

std::string line(const std::string& what, std::string_view description) {
  std::string text = "  " + what;
  // Too long for its column: the description has a line of its own.
  if (text.size() + 2 > kIndent) text += "\n" + std::string(kIndent, ' ');
  return fmt::format("{:<{}}{}\n", text, kIndent, description);
}

std::string line(const Option& option) {
  std::string what;
  if (!option.short_name().empty()) what = fmt::format("{}, ", option.short_name());
  what += option.name();
  if (!option.value_name().empty()) what += fmt::format(" {}", option.value_name());
  return line(what, option.description());
}

Option::Take take_text(std::string& target) {
  return [&target](std::string_view text) {
    target = text;
    return Result<void>();
  };
}

}  // namespace

Option& Option::required() {
  required_ = true;
  return *this;
}

Option& Option::short_name(std::string_view name) {
  short_ = name;
  return *this;
}

Option& Option::needs(const Option& other) {
  needs_ = &other;
  return *this;
}

Option& Option::excludes(const Option& other) {
  excludes_ = &other;
  return *this;
}

Option& Syntax::argument(std::string_view name, Option::Take take, std::string_view description) {
  Option& made = arguments_.emplace_back();
  made.name_ = name;
  made.description_ = description;
  made.take_ = std::move(take);
  made.required_ = true;
  return made;
}

Option& Syntax::argument(std::string_view name, std::string& target, std::string_view description) {
  return argument(name, take_text(target), description);
}

Option& Syntax::flag(std::string_view name, bool& target, std::string_view description,
                     bool value) {
  Option& made = add(name, "", description, [&target, value](std::string_view) {
    target = value;
    return Result<void>();
  });
  made.repeatable_ = true;
  return made;
}

Option& Syntax::text(std::string_view name, std::string& target, std::string_view description,
                     std::string_view value_name) {
  return add(name, value_name, description, take_text(target));
}

Option& Syntax::add(std::string_view name, std::string_view value_name,
                    std::string_view description, Option::Take take) {
  Option& made = options_.emplace_back();
  made.name_ = name;
  made.value_ = value_name;
  made.description_ = description;
  made.take_ = std::move(take);
  return made;
}

Option* Syntax::find(std::string_view name) {
  for (Option& option : options_) {
    if (option.name_ == name || (!option.short_.empty() && option.short_ == name)) return &option;
  }
  return nullptr;
}

base::Error Syntax::usage(const std::string& what) const {
  return base::Error(fmt::format("{}: see minivmm {} --help", what, name_));
}

// Takes one option off `words`, and its value.
Result<void> Syntax::take_option(std::span<const char* const>& words) {
  std::string_view word = words.front(), value;
  words = words.subspan(1);
  const size_t equals = word.starts_with("--") ? word.find('=') : word.npos;
  const std::string_view name = word.substr(0, equals);
  Option* option = find(name);
  if (option == nullptr) return std::unexpected(usage(fmt::format("unknown option {}", name)));
  if (option->given_ && !option->repeatable_) {
    return std::unexpected(usage(fmt::format("{} is given twice", name)));
  }
  if (option->value_.empty()) {
    if (equals != word.npos) {
      return std::unexpected(usage(fmt::format("{} takes no value", name)));
    }
  } else if (equals != word.npos) {
    value = word.substr(equals + 1);
  } else if (words.empty()) {
    return std::unexpected(usage(fmt::format("{} needs a value, {}", name, option->value_)));
  } else {
    value = words.front();
    words = words.subspan(1);
  }
  option->given_ = true;
  if (auto taken = option->take_(value); !taken) {
    return std::unexpected(taken.error().with(std::string(option->name_)));
  }
  return {};
}

Result<bool> Syntax::parse(std::span<const char* const> words) {
  size_t arguments = 0;
  bool options = true;
  while (!words.empty()) {
    const std::string_view word = words.front();
    if (options && word == "--") {
      options = false;
      words = words.subspan(1);
    } else if (options && asks_for_help(word)) {
      return true;
    } else if (options && word.size() > 1 && word.starts_with('-')) {
      TRY(take_option(words));
    } else {
      if (arguments == arguments_.size()) {
        return std::unexpected(usage(fmt::format("unexpected argument {}", word)));
      }
      Option& argument = arguments_[arguments++];
      argument.given_ = true;
      if (auto taken = argument.take_(word); !taken) {
        return std::unexpected(taken.error().with(std::string(argument.name_)));
      }
      words = words.subspan(1);
    }
  }
  TRY(check());
  return false;
}

Result<void> Syntax::check() const {
  for (const std::deque<Option>* list : {&arguments_, &options_}) {
    for (const Option& option : *list) {
      if (option.required_ && !option.given_) {
        return std::unexpected(usage(fmt::format("{} is missing", option.name_)));
      }
      if (!option.given_) continue;
      if (option.needs_ != nullptr && !option.needs_->given_) {
        return std::unexpected(
            usage(fmt::format("{} needs {}", option.name_, option.needs_->name_)));
      }
      if (option.excludes_ != nullptr && option.excludes_->given_) {
        return std::unexpected(usage(
            fmt::format("{} and {} exclude each other", option.name_, option.excludes_->name_)));
      }
    }
  }
  return {};
}

std::string Syntax::help() const {
  std::string text = fmt::format("{}\n\nUsage: minivmm {} [OPTIONS]", description_, name_);
  for (const Option& argument : arguments_) text += fmt::format(" {}", argument.name_);
  text += "\n\n";
  for (const Option& argument : arguments_) text += line(argument);
  if (!arguments_.empty()) text += "\n";
  text += "Options:\n" + line("-h, --help", "print this");
  for (const Option& option : options_) text += line(option);
  return text + "\n" + footer_ + "\n";
}

}  // namespace cli
