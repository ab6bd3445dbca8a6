// Resource descriptors for _CRS objects (ACPI 6.5, section 6.4), with the names that ASL gives
// them. Pure functions.
#pragma once

#include <cstdint>
#include <vector>

#include "vmm/acpi/aml.h"
#include "vmm/guest_address.h"

namespace vmm::acpi::aml {

struct Resource {
  std::vector<uint8_t> bytes;
};

// What a device decodes itself.
Resource io(uint16_t first_port, uint8_t count);
Resource irq(unsigned isa_irq);  // edge-triggered, active high, not shared
Resource memory32_fixed(Gpa base, uint32_t size);

// What a host bridge passes on to its bus; the bounds are inclusive.
Resource word_bus_number(uint16_t first, uint16_t last);
Resource word_io(uint16_t first, uint16_t last);
Resource dword_memory(Gpa base, uint32_t size);

Term resource_template(const std::vector<Resource>& resources);

}  // namespace vmm::acpi::aml
