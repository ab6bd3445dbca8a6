// "N=PATH" on the command line: the disk that the guest has as its Nth, from 0, and a file for it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "vmm/base/result.h"

namespace cli {

struct DiskArgument {
  uint32_t disk = 0;
  std::string path;
};

base::Result<DiskArgument> parse_disk_argument(std::string_view text);

}  // namespace cli
