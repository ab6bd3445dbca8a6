#include "cli/snapshot_name.h"

#include <fmt/format.h>

#include "vmm/base/path.h"

namespace cli {

base::Result<std::string> parse_id_prefix(std::string_view text) {
  constexpr size_t kDigits = 32;
  if (text.empty() || text.size() > kDigits ||
      text.find_first_not_of("0123456789abcdef") != std::string_view::npos) {
    return base::fail(fmt::format(
        "'{}' is not the beginning of an id (1 to 32 hexadecimal digits): see minivmm list", text));
  }
  return std::string(text);
}

base::Result<SnapshotName> parse_snapshot_name(std::string_view text) {
  size_t at = text.rfind('@');
  size_t slash = text.rfind('/');
  SnapshotName name;
  if (at == std::string_view::npos || (slash != std::string_view::npos && slash > at) ||
      base::is_directory(std::string(text))) {
    name.store = text;
  } else {
    name.store = text.substr(0, at);
    TRY_ASSIGN(name.id_prefix, parse_id_prefix(text.substr(at + 1)));
  }
  if (name.store.empty()) return base::fail("no store named: say STORE or STORE@ID");
  return name;
}

}  // namespace cli
