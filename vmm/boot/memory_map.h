// What the guest is told about its address space: one list for the zero page (e820) and for PVH,
// which number the types alike.
#pragma once

#include <cstdint>
#include <vector>

#include "vmm/guest_memory.h"

namespace vmm::boot {

struct MemoryRange {
  enum class Type : uint32_t { kRam = 1, kReserved = 2, kAcpi = 3 };  // ACPI 6.4, table 15.3
  Gpa start;
  uint64_t size = 0;  // bytes
  Type type = Type::kRam;
  bool operator==(const MemoryRange&) const = default;
};

// Ordered by address, without overlap. Guest memory must reach beyond 1 MiB.
std::vector<MemoryRange> memory_map(const GuestMemory& memory);

// The end of the RAM below the hole, where kernels, initrds and boot data must be.
inline uint64_t low_ram_end(const GuestMemory& memory) { return memory.regions().front().size; }

}  // namespace vmm::boot
