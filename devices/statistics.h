// What a machine's devices have done so far, for `minivmm stats`: names and plain counters.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace devices {

struct DeviceStatistics {
  std::string device;  // "disk0", "net0", …
  std::vector<std::pair<std::string, uint64_t>> counters;
};

}  // namespace devices
