#include "vmm/boot/zero_page.h"

#include <cstddef>
#include <cstdint>

#include "vmm/boot/memory_map.h"
#include "vmm/layout.h"

namespace vmm::boot {

static_assert(sizeof(boot_params) == kPageSize);
static_assert(offsetof(boot_params, acpi_rsdp_addr) == 0x070);
static_assert(offsetof(boot_params, e820_entries) == 0x1E8);
static_assert(offsetof(boot_params, hdr) == 0x1F1);
static_assert(offsetof(boot_params, e820_table) == 0x2D0);
static_assert(sizeof(boot_e820_entry) == 20);

setup_header default_setup_header() {
  setup_header header{};
  header.boot_flag = 0xAA55;
  header.header = 0x53726448;  // "HdrS"
  header.version = 0x020C;
  header.loadflags = LOADED_HIGH;
  header.kernel_alignment = 0x20'0000;
  header.cmdline_size = 2047;  // COMMAND_LINE_SIZE of x86 less the final zero
  header.initrd_addr_max = 0x7FFF'FFFF;
  return header;
}

base::Result<void> write_zero_page(GuestMemory& memory, const setup_header& header,
                                   const BootData& data) {
  constexpr uint8_t kLoaderUndefined = 0xFF;
  boot_params params{};
  params.hdr = header;
  params.hdr.type_of_loader = kLoaderUndefined;
  params.hdr.loadflags &= static_cast<uint8_t>(~(CAN_USE_HEAP | QUIET_FLAG | KASLR_FLAG));
  params.hdr.setup_data = 0;
  params.hdr.cmd_line_ptr = static_cast<uint32_t>(data.command_line.value);
  params.ext_cmd_line_ptr = static_cast<uint32_t>(data.command_line.value >> 32);
  params.hdr.ramdisk_image = static_cast<uint32_t>(data.initrd.value);
  params.ext_ramdisk_image = static_cast<uint32_t>(data.initrd.value >> 32);
  params.hdr.ramdisk_size = static_cast<uint32_t>(data.initrd_size);
  params.ext_ramdisk_size = static_cast<uint32_t>(data.initrd_size >> 32);
  params.acpi_rsdp_addr = data.rsdp.value;
  for (const MemoryRange& range : memory_map(memory)) {
    params.e820_table[params.e820_entries++] = {range.start.value, range.size,
                                                static_cast<uint32_t>(range.type)};
  }
  return memory.store(layout::kZeroPage, params);
}

}  // namespace vmm::boot
