// Where the pages of kRamSpace are in the guest's address space: RAM is numbered from 0 in the
// order of addresses, without the holes; the manifest says what lies where.
#pragma once

#include <cstdint>
#include <vector>

#include "snapshot/store/manifest.h"
#include "vmm/base/result.h"
#include "vmm/guest_address.h"

namespace snapshot {

struct RamRegion {
  vmm::Gpa start;
  uint64_t first_page = 0;
  uint64_t pages = 0;
};

// Ascending, none empty, none overlapping, together all pages of kRamSpace; the error says that the
// manifest contradicts itself.
base::Result<std::vector<RamRegion>> ram_regions(const Manifest& manifest);

// The address of a page that is in one of `regions`.
vmm::Gpa gpa_of(const std::vector<RamRegion>& regions, uint64_t ram_page);

}  // namespace snapshot
