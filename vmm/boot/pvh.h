// The structures a PVH kernel is given (xen/include/public/arch-x86/hvm/start_info.h, version 1).
#pragma once

#include <cstddef>
#include <cstdint>

#include "vmm/base/result.h"
#include "vmm/boot/boot_data.h"
#include "vmm/guest_memory.h"

namespace vmm::boot {

struct HvmStartInfo {
  uint32_t magic = 0x336E'C578;
  uint32_t version = 1;
  uint32_t flags = 0;
  uint32_t module_count = 0;
  uint64_t modules = 0;       // gpa of HvmModule[]
  uint64_t command_line = 0;  // gpa of a zero-terminated string
  uint64_t rsdp = 0;
  uint64_t memory_map = 0;  // gpa of HvmMemoryRange[]
  uint32_t memory_map_count = 0;
  uint32_t reserved = 0;
};
static_assert(sizeof(HvmStartInfo) == 56);
static_assert(offsetof(HvmStartInfo, rsdp) == 32);
static_assert(offsetof(HvmStartInfo, memory_map_count) == 48);

struct HvmModule {
  uint64_t start = 0;
  uint64_t size = 0;
  uint64_t command_line = 0;
  uint64_t reserved = 0;
};
static_assert(sizeof(HvmModule) == 32);

struct HvmMemoryRange {
  uint64_t start = 0;
  uint64_t size = 0;
  uint32_t type = 0;  // as e820
  uint32_t reserved = 0;
};
static_assert(sizeof(HvmMemoryRange) == 24);

// Writes start_info, the memory map and the initrd as its first module to layout::kPvhStartInfo.
base::Result<void> write_start_info(GuestMemory& memory, const BootData& data);

}  // namespace vmm::boot
