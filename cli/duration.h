// Times as a person writes them on the command line.
#pragma once

#include <chrono>
#include <string>
#include <string_view>

#include "vmm/base/result.h"

namespace cli {

// "300us", "50ms", "30s", "5m", "2h": a whole number and its unit, at most a year.
base::Result<std::chrono::nanoseconds> parse_duration(std::string_view text);

// Three figures that matter and a unit: "213 us", "1.34 s".
std::string format_duration(std::chrono::nanoseconds time);

}  // namespace cli
