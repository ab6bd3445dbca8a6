#include "snapshot/types.h"

#include <fmt/format.h>
#include <sys/random.h>

#include <charconv>

namespace snapshot {

base::Result<Id> Id::random() {
  Id id;
  if (getrandom(&id, sizeof id, 0) != sizeof id) return base::fail_errno("random number for an id");
  return id;
}

base::Result<Id> Id::parse(std::string_view text) {
  constexpr size_t kHalf = 16;
  Id id;
  auto half = [&](std::string_view digits, uint64_t& value) {
    auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value, 16);
    return error == std::errc() && end == digits.data() + digits.size() &&
           digits.find_first_of("-ABCDEF") == std::string_view::npos;
  };
  if (text.size() != 2 * kHalf || !half(text.substr(0, kHalf), id.high) ||
      !half(text.substr(kHalf), id.low)) {
    return base::fail(fmt::format("'{}' is not an id: 32 hexadecimal digits", text));
  }
  return id;
}

std::string Id::text() const { return fmt::format("{:016x}{:016x}", high, low); }

}  // namespace snapshot
