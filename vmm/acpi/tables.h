// The ACPI tables by which a guest finds its CPUs, interrupt controllers, PCI bus and power
// registers (ACPI 6.5, chapter 5): RSDP, XSDT, FADT, FACS, MADT, MCFG and DSDT. Written once,
// before the guest starts, to layout::kAcpiTables.
#pragma once

#include <cstdint>

#include "vmm/base/result.h"
#include "vmm/guest_address.h"
#include "vmm/guest_memory.h"

namespace vmm::acpi {

struct Config {
  uint32_t cpus = 1;  // 1 to layout::kMaxCpus; APIC ids are 0 to cpus - 1
};

// Returns where the RSDP is, for the boot parameters; it also lies where a BIOS guest would search.
base::Result<Gpa> write_tables(GuestMemory& memory, const Config& config);

}  // namespace vmm::acpi
