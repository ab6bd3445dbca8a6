#include "vmm/boot/memory_map.h"

#include "vmm/layout.h"

namespace vmm::boot {

std::vector<MemoryRange> memory_map(const GuestMemory& memory) {
  using Type = MemoryRange::Type;
  constexpr uint64_t kKvmPrivateSize = 4 * kPageSize;  // identity map, then three pages of TSS
  std::vector<MemoryRange> map = {
      {Gpa{0}, layout::kLowRamHole.value, Type::kRam},
      {layout::kAcpiTables, layout::kAcpiTablesSize, Type::kAcpi},
      // Not the tables' type: their memory may be used for something else once they are read.
      {layout::kGenerationId, kPageSize, Type::kReserved},
      {layout::kKernelStart, low_ram_end(memory) - layout::kKernelStart.value, Type::kRam},
      // Linux uses the ECAM only where firmware reserves it.
      {layout::kPciEcam, layout::kPciEcamSize, Type::kReserved},
      {layout::kKvmIdentityMap, kKvmPrivateSize, Type::kReserved},
  };
  for (const GuestMemory::Region& region : memory.regions()) {
    if (region.start >= layout::kHighRamStart)
      map.push_back({region.start, region.size, Type::kRam});
  }
  return map;
}

}  // namespace vmm::boot
