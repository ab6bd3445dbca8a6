#include "cli/duration.h"

#include <fmt/format.h>

#include <array>

#include "cli/size.h"

namespace cli {
namespace {

struct Unit {
  std::string_view name;
  uint64_t ns;
};
constexpr std::array kUnits{Unit{"us", 1000}, Unit{"ms", 1'000'000}, Unit{"s", 1'000'000'000},
                            Unit{"m", 60'000'000'000}, Unit{"h", 3600'000'000'000}};
constexpr uint64_t kMostNs = 365ull * 24 * 3600'000'000'000;

}  // namespace

base::Result<std::chrono::nanoseconds> parse_duration(std::string_view text) {
  size_t digits = text.find_first_not_of("0123456789");
  if (digits != 0 && digits != std::string_view::npos) {
    for (const Unit& unit : kUnits) {
      if (text.substr(digits) != unit.name) continue;
      TRY_ASSIGN(uint64_t count, parse_number(text.substr(0, digits), 0, kMostNs / unit.ns));
      return std::chrono::nanoseconds(count * unit.ns);
    }
  }
  return base::fail(
      fmt::format("'{}' is no time: a number with us, ms, s, m or h, as in 30s", text));
}

std::string format_duration(std::chrono::nanoseconds time) {
  double ns = static_cast<double>(time.count());
  if (ns < 1e6) return fmt::format("{:.3g} us", ns / 1e3);
  if (ns < 1e9) return fmt::format("{:.3g} ms", ns / 1e6);
  if (ns < 100e9) return fmt::format("{:.3g} s", ns / 1e9);
  return fmt::format("{:.0f} s", ns / 1e9);
}

}  // namespace cli
