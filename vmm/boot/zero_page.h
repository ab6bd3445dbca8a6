// boot_params, the "zero page" of the Linux boot protocol (Documentation/arch/x86/zero-page.rst).
#pragma once

#include <asm/bootparam.h>

#include "vmm/base/result.h"
#include "vmm/boot/boot_data.h"
#include "vmm/guest_memory.h"

namespace vmm::boot {

// The setup header for a kernel that comes without one (an ELF vmlinux).
setup_header default_setup_header();

// Writes layout::kZeroPage: `header` with the loader's fields filled in, the memory map, the rest
// 0.
base::Result<void> write_zero_page(GuestMemory& memory, const setup_header& header,
                                   const BootData& data);

}  // namespace vmm::boot
