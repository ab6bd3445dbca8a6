#include "snapshot/ram_regions.h"

namespace snapshot {

base::Result<std::vector<RamRegion>> ram_regions(const Manifest& manifest) {
  std::vector<RamRegion> regions;
  uint64_t pages = 0, end = 0;
  bool ascending = true;
  for (const MemoryRegion& region : manifest.memory) {
    uint64_t count = region.size / kPageBytes;
    if (region.gpa < end || region.gpa + region.size <= region.gpa || count > kMaxPages)
      ascending = false;
    regions.push_back({vmm::Gpa{region.gpa}, pages, count});
    pages += count;
    end = region.gpa + region.size;
  }
  const SpaceInfo* ram = manifest.find(kRamSpace);
  if (!ascending || pages != (ram == nullptr ? 0 : ram->pages))
    return base::fail("snapshot " + manifest.id.text() + ": its memory regions and pages disagree");
  return regions;
}

vmm::Gpa gpa_of(const std::vector<RamRegion>& regions, uint64_t ram_page) {
  for (const RamRegion& region : regions) {
    if (ram_page - region.first_page < region.pages)
      return region.start + (ram_page - region.first_page) * kPageBytes;
  }
  return vmm::Gpa{~0ull};
}

}  // namespace snapshot
