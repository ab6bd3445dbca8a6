#include "vmm/boot/pvh.h"

#include <span>
#include <vector>

#include "vmm/boot/memory_map.h"
#include "vmm/layout.h"

namespace vmm::boot {

base::Result<void> write_start_info(GuestMemory& memory, const BootData& data) {
  constexpr Gpa kModules = layout::kPvhStartInfo + 0x40;
  constexpr Gpa kMemoryMap = layout::kPvhStartInfo + 0x80;
  static_assert(sizeof(HvmStartInfo) <= 0x40 && sizeof(HvmModule) <= 0x40);

  std::vector<HvmMemoryRange> map;
  for (const MemoryRange& range : memory_map(memory))
    map.push_back({range.start.value, range.size, static_cast<uint32_t>(range.type), 0});
  TRY(memory.write(kMemoryMap, std::as_bytes(std::span(map))));

  HvmStartInfo info;
  if (data.initrd_size > 0) {
    TRY(memory.store(kModules, HvmModule{data.initrd.value, data.initrd_size, 0, 0}));
    info.module_count = 1;
    info.modules = kModules.value;
  }
  info.command_line = data.command_line.value;
  info.rsdp = data.rsdp.value;
  info.memory_map = kMemoryMap.value;
  info.memory_map_count = static_cast<uint32_t>(map.size());
  return memory.store(layout::kPvhStartInfo, info);
}

}  // namespace vmm::boot
