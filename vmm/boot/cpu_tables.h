// The tables the boot processor starts with: a GDT for both entry modes, and page tables that map
// the first 4 GiB onto themselves for the 64-bit one.
#pragma once

#include "vmm/base/result.h"
#include "vmm/boot/kernel.h"
#include "vmm/guest_memory.h"

namespace vmm::boot {

base::Result<void> write_cpu_tables(GuestMemory& memory, Entry::Mode mode);

}  // namespace vmm::boot
