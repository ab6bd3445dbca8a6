// The 16 random bytes by which a guest tells that it is another copy than it was (dsdt.cc): written
// when the tables are, and again for each restored copy, which is then notified.
#pragma once

#include "vmm/base/result.h"
#include "vmm/guest_memory.h"

namespace vmm::acpi {

// Writes a new value to layout::kGenerationId.
base::Result<void> write_generation_id(GuestMemory& memory);

}  // namespace vmm::acpi
