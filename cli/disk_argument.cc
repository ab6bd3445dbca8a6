#include "cli/disk_argument.h"

#include <fmt/format.h>

#include "cli/size.h"

namespace cli {

base::Result<DiskArgument> parse_disk_argument(std::string_view text) {
  constexpr uint64_t kMost = 255;
  size_t equals = text.find('=');
  auto number = parse_number(text.substr(0, equals), 0, kMost);
  if (equals == std::string_view::npos || !number || equals + 1 == text.size()) {
    return base::fail(fmt::format(
        "'{}': say the number of the disk and a file, as in 0=root.img (0 is /dev/vda)", text));
  }
  return DiskArgument{static_cast<uint32_t>(*number), std::string(text.substr(equals + 1))};
}

}  // namespace cli
