// The devices that a guest cannot find by itself, as AML: the PCI host bridge with its windows, the
// ISA devices, the processors and how to power off.
#pragma once

#include <cstdint>

#include "vmm/acpi/aml.h"

namespace vmm::acpi {

// The body of the DSDT, which write_tables() (tables.h) puts behind its header.
aml::Term dsdt_body(uint32_t cpus);

}  // namespace vmm::acpi
