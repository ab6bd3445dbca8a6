// Where the pages of kRamSpace are in the guest's address space: RAM is numbered without the hole
// below 4 GiB, as vmm::GuestMemory lays it out (vmm/layout.h).
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "snapshot/types.h"
#include "vmm/guest_address.h"
#include "vmm/layout.h"

namespace snapshot {

struct RamRegion {
  vmm::Gpa start;
  uint64_t first_page = 0;
  uint64_t pages = 0;
};

// One or two regions, none of them empty.
inline std::vector<RamRegion> ram_regions(uint64_t ram_pages) {
  uint64_t low = std::min(ram_pages, vmm::layout::kLowRamEnd.value / kPageBytes);
  std::vector<RamRegion> regions;
  if (low > 0) regions.push_back({vmm::Gpa{0}, 0, low});
  if (ram_pages > low) regions.push_back({vmm::layout::kHighRamStart, low, ram_pages - low});
  return regions;
}

}  // namespace snapshot
