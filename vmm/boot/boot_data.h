// What a kernel is given beside its own image: command line, initrd, ACPI root pointer. Both boot
// protocols describe the same, each in its own structure.
#pragma once

#include <cstdint>
#include <string>

#include "vmm/base/result.h"
#include "vmm/guest_memory.h"

namespace vmm::boot {

struct BootData {
  Gpa command_line;
  Gpa initrd;                // page-aligned
  uint64_t initrd_size = 0;  // bytes; 0: none
  Gpa rsdp;
};

// Writes `text` to layout::kCommandLine; `length_max` is the kernel's own limit in bytes, without
// the final zero.
base::Result<void> write_command_line(GuestMemory& memory, const std::string& text,
                                      uint64_t length_max);

// Reads the file as high as possible below `address_limit` (exclusive) and the end of low RAM, at
// or above `kernel_end`. Fills in data.initrd and data.initrd_size.
base::Result<void> load_initrd(GuestMemory& memory, const std::string& path, uint64_t kernel_end,
                               uint64_t address_limit, BootData& data);

}  // namespace vmm::boot
