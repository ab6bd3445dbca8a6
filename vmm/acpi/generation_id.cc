#include "vmm/acpi/generation_id.h"

#include <sys/random.h>

#include <array>
#include <span>

#include "vmm/layout.h"

namespace vmm::acpi {

base::Result<void> write_generation_id(GuestMemory& memory) {
  std::array<std::byte, 16> id;
  // As few bytes as this come whole (getrandom(2)).
  if (::getrandom(id.data(), id.size(), 0) != static_cast<ssize_t>(id.size())) {
    return base::fail_errno("getrandom for the generation ID");
  }
  return memory.write(layout::kGenerationId, id);
}

}  // namespace vmm::acpi
