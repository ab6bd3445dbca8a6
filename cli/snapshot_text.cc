#include "cli/snapshot_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <ctime>

#include "vmm/base/log.h"

namespace cli {
namespace {

// Bytes of the well-formed UTF-8 sequence at the start of `text`, 0 where there is none (Unicode
// 15, table 3-7).
size_t utf8_length(std::string_view text) {
  auto at = [&](size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u; };
  auto continues = [&](size_t i) { return (at(i) & 0xC0u) == 0x80u; };
  unsigned lead = at(0), second = at(1);
  if (lead < 0x80) return 1;
  if (lead >= 0xC2 && lead <= 0xDF) return continues(1) ? 2 : 0;
  if (lead >= 0xE0 && lead <= 0xEF) {
    if (lead == 0xE0 && second < 0xA0) return 0;
    if (lead == 0xED && second > 0x9F) return 0;
    return continues(1) && continues(2) ? 3 : 0;
  }
  if (lead >= 0xF0 && lead <= 0xF4) {
    if (lead == 0xF0 && second < 0x90) return 0;
    if (lead == 0xF4 && second > 0x8F) return 0;
    return continues(1) && continues(2) && continues(3) ? 4 : 0;
  }
  return 0;
}

}  // namespace

std::string short_id(const snapshot::Id& id, std::span<const snapshot::Id> all) {
  constexpr size_t kLeast = 8;
  std::string text = id.text();
  size_t length = kLeast;
  for (const snapshot::Id& other : all) {
    if (other == id) continue;
    std::string other_text = other.text();
    auto differ = std::ranges::mismatch(text, other_text).in1;
    length = std::max(length, static_cast<size_t>(differ - text.begin()) + 1);
  }
  return text.substr(0, length);
}

std::string format_time(int64_t unix_ns) {
  std::time_t seconds = unix_ns / 1'000'000'000;
  std::tm local{};
  char text[32];
  if (localtime_r(&seconds, &local) == nullptr ||
      std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &local) == 0) {
    return "?";
  }
  return text;
}

std::string format_age(int64_t ns) {
  int64_t seconds = std::max<int64_t>(ns, 0) / 1'000'000'000;
  if (seconds < 60) return fmt::format("{} s", seconds);
  if (seconds < 3600) return fmt::format("{} min", seconds / 60);
  if (seconds < 86400) return fmt::format("{} h", seconds / 3600);
  return fmt::format("{} d", seconds / 86400);
}

std::string format_duration(uint64_t ns) {
  if (ns < 1'000'000) return fmt::format("{} us", (ns + 500) / 1000);
  if (ns < 1'000'000'000) return fmt::format("{:.1f} ms", double(ns) / 1e6);
  return fmt::format("{:.1f} s", double(ns) / 1e9);
}

std::string plain_text(std::string_view text, size_t longest) {
  std::string plain;
  while (!text.empty()) {
    size_t length = utf8_length(text);
    // U+0080 to U+009F are control characters as well.
    bool control = length == 2 && text[0] == '\xC2' && static_cast<unsigned char>(text[1]) < 0xA0;
    if (plain.size() + std::max<size_t>(length, 1) > longest) break;
    plain += length == 0 || control ? std::string_view("?") : text.substr(0, length);
    text.remove_prefix(std::max<size_t>(length, 1));
  }
  return base::one_line(plain);
}

}  // namespace cli
