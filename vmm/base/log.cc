#include "vmm/base/log.h"

#include <atomic>
#include <cstdio>

namespace base {

namespace {

// Shared by all threads, without being handed to them.
std::atomic<LogLevel> lowest = LogLevel::kWarning;

const char* name_of(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return "debug";
    case LogLevel::kInfo:
      return "info";
    case LogLevel::kWarning:
      return "warning";
    case LogLevel::kError:
      return "error";
    case LogLevel::kOff:
      break;
  }
  return "off";
}

}  // namespace

void set_log_level(LogLevel level) { lowest.store(level, std::memory_order_relaxed); }

std::optional<LogLevel> parse_log_level(std::string_view name) {
  for (LogLevel level :
       {LogLevel::kDebug, LogLevel::kInfo, LogLevel::kWarning, LogLevel::kError, LogLevel::kOff}) {
    if (name == name_of(level)) return level;
  }
  return std::nullopt;
}

bool log_enabled(LogLevel level) { return level >= lowest.load(std::memory_order_relaxed); }

void log_line(LogLevel level, std::string_view text) {
  if (!log_enabled(level)) return;
  // One call: lines of several threads do not mix. Nobody could be told that it failed.
  std::string line = fmt::format("minivmm: {}: {}\n", name_of(level), one_line(text));
  (void)std::fwrite(line.data(), 1, line.size(), stderr);
}

std::string one_line(std::string_view text) {
  std::string line(text);
  for (char& c : line) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) c = '?';
  }
  return line;
}

}  // namespace base
