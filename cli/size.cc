#include "cli/size.h"

#include <fmt/format.h>

#include <array>
#include <charconv>

namespace cli {
namespace {

// The whole of `text` as a decimal number.
bool read_decimal(std::string_view text, uint64_t& value) {
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size();
}

}  // namespace

base::Result<uint64_t> parse_size(std::string_view text) {
  constexpr std::string_view kUnits = "KMGT";
  uint64_t count = 0;
  size_t unit = text.empty() ? std::string_view::npos : kUnits.find(text.back());
  if (unit == std::string_view::npos) {
    return base::fail(
        fmt::format("'{}' is no size: say a number and K, M, G or T, as in 256M", text));
  }
  if (!read_decimal(text.substr(0, text.size() - 1), count)) {
    return base::fail(fmt::format("'{}' is no size: say it as in 256M or 2G", text));
  }
  unsigned shift = 10 * (static_cast<unsigned>(unit) + 1);
  if (count > (UINT64_MAX >> shift)) return base::fail(fmt::format("'{}' is too large", text));
  return count << shift;
}

std::string format_size(uint64_t bytes) {
  constexpr std::array<const char*, 5> kNames{"B", "KiB", "MiB", "GiB", "TiB"};
  size_t unit = 0;
  double value = static_cast<double>(bytes);
  while (value >= 1024 && unit + 1 < kNames.size()) {
    value /= 1024;
    ++unit;
  }
  std::string number = fmt::format("{:.1f}", value);
  if (number.ends_with(".0")) number.resize(number.size() - 2);
  return number + " " + kNames[unit];
}

base::Result<uint64_t> parse_number(std::string_view text, uint64_t least, uint64_t most) {
  uint64_t value = 0;
  if (!read_decimal(text, value) || value < least || value > most) {
    return base::fail(fmt::format("'{}' is not a number from {} to {}", text, least, most));
  }
  return value;
}

}  // namespace cli
