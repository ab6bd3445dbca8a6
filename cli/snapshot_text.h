// How snapshots are written for a person: short ids, times, durations. All give text that is safe
// for a terminal, whatever is in the store.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "snapshot/types.h"

namespace cli {

// The beginning of an id, long enough to be told from each of `all` (which may hold it), 8 digits
// at least.
std::string short_id(const snapshot::Id& id, std::span<const snapshot::Id> all);

// Local time, "2026-03-01 17:05:09".
std::string format_time(int64_t unix_ns);
// "12 s", "5 min", "3 h", "6 d": as long ago as the largest unit that fits says.
std::string format_age(int64_t ns);
// "187 us", "2.4 ms", "1.5 s".
std::string format_duration(uint64_t ns);

// One line without control characters; what is no UTF-8 becomes '?'; at most `longest` bytes.
std::string plain_text(std::string_view text, size_t longest = 64);

}  // namespace cli
