// What a command takes on its command line: arguments and options, each parsed by one of the
// project's parsers, and the text of --help about them. CLI11 does this too; it and the C++ streams
// that it brings in were 0.2 ms of the 1.2 that a restore took besides KVM's calls.
//
//   --name VALUE, --name=VALUE, --flag, -f; options and arguments in any order; after -- arguments
//   only
#pragma once

#include <deque>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "vmm/base/result.h"

namespace cli {

// Names and descriptions are string literals.
class Option {
 public:
  using Take = std::function<base::Result<void>(std::string_view text)>;

  std::string_view name() const { return name_; }         // "--disk", of an argument "STORE"
  std::string_view short_name() const { return short_; }  // "-q" or empty
  std::string_view value_name() const { return value_; }  // empty: it takes no value
  std::string_view description() const { return description_; }
  bool given() const { return given_; }

  Option& required();
  Option& short_name(std::string_view name);
  Option& needs(const Option& other);
  Option& excludes(const Option& other);

 private:
  friend class Syntax;
  std::string_view name_, short_, value_, description_;
  Take take_;
  const Option* needs_ = nullptr;
  const Option* excludes_ = nullptr;
  bool required_ = false, repeatable_ = false, given_ = false;
};

template <typename T>
using Parser = base::Result<T> (*)(std::string_view text);

// Its options refer to targets that outlive it.
class Syntax {
 public:
  Syntax(std::string_view name, std::string_view description)
      : name_(name), description_(description) {}

  // What stands for itself, in this order; required.
  Option& argument(std::string_view name, Option::Take take, std::string_view description);
  Option& argument(std::string_view name, std::string& target, std::string_view description);
  template <typename T>
  Option& argument(std::string_view name, T& target, Parser<T> parser,
                   std::string_view description) {
    return argument(name, taking(target, parser), description);
  }
  Option& flag(std::string_view name, bool& target, std::string_view description,
               bool value = true);
  Option& text(std::string_view name, std::string& target, std::string_view description,
               std::string_view value_name);
  // `target` is a T or a std::optional<T>. A bad value is told as "--name: what is wrong".
  template <typename Target, typename T>
  Option& option(std::string_view name, Target& target, Parser<T> parser,
                 std::string_view description, std::string_view value_name) {
    return add(name, value_name, description, taking(target, parser));
  }
  // One that may be given several times.
  template <typename T>
  Option& list(std::string_view name, std::vector<T>& target, Parser<T> parser,
               std::string_view description, std::string_view value_name) {
    auto take = [&target, parser](std::string_view text) -> base::Result<void> {
      TRY_ASSIGN(T parsed, parser(text));
      target.push_back(std::move(parsed));
      return {};
    };
    Option& made = add(name, value_name, description, take);
    made.repeatable_ = true;
    return made;
  }
  // What --help says at its end.
  void footer(std::string text) { footer_ = std::move(text); }

  std::string_view name() const { return name_; }
  std::string_view description() const { return description_; }
  const std::deque<Option>& arguments() const { return arguments_; }
  const std::deque<Option>& options() const { return options_; }

  // The words after the command's name. True where an option asks for help: what follows it, and
  // what is missing, does not matter then.
  base::Result<bool> parse(std::span<const char* const> words);
  std::string help() const;

 private:
  template <typename Target, typename T>
  static Option::Take taking(Target& target, Parser<T> parser) {
    return [&target, parser](std::string_view text) -> base::Result<void> {
      TRY_ASSIGN(T parsed, parser(text));
      target = std::move(parsed);
      return {};
    };
  }
  Option& add(std::string_view name, std::string_view value_name, std::string_view description,
              Option::Take take);
  Option* find(std::string_view name);
  base::Result<void> take_option(std::span<const char* const>& words);
  base::Result<void> check() const;
  base::Error usage(const std::string& what) const;

  std::string_view name_, description_;
  std::deque<Option> arguments_, options_;
  std::string footer_;
};

}  // namespace cli
