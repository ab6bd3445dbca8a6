// Glue between CLI11 and the project's parsers, which return Result<T>: an option whose value is
// parsed by one of them. A bad value ends parsing with "--option: what is wrong".
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "vmm/base/result.h"

namespace cli {

template <typename T>
using Parser = base::Result<T> (*)(std::string_view text);

template <typename T>
T parse_or_throw(const std::string& name, const std::string& text, Parser<T> parse) {
  base::Result<T> value = parse(text);
  if (!value) throw CLI::ValidationError(name, value.error().text());
  return *std::move(value);
}

// `target` may be a T or a std::optional<T>; it outlives `app`.
template <typename Target, typename T>
CLI::Option* add_parsed(CLI::App& app, const std::string& name, Target& target, Parser<T> parse,
                        const std::string& description, const std::string& type_name) {
  return app
      .add_option_function<std::string>(
          name,
          [name, &target, parse](const std::string& text) {
            target = parse_or_throw(name, text, parse);
          },
          description)
      ->type_name(type_name);
}

// The same for an option that may be given several times.
template <typename T>
CLI::Option* add_parsed_list(CLI::App& app, const std::string& name, std::vector<T>& target,
                             Parser<T> parse, const std::string& description,
                             const std::string& type_name) {
  return app
      .add_option_function<std::vector<std::string>>(
          name,
          [name, &target, parse](const std::vector<std::string>& texts) {
            target.clear();
            for (const std::string& text : texts) {
              target.push_back(parse_or_throw(name, text, parse));
            }
          },
          description)
      ->type_name(type_name)
      ->allow_extra_args(false);
}

}  // namespace cli
