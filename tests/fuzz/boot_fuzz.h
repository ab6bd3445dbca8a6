// What the fuzz targets of the boot loaders share: patches that turn a made-up kernel into a
// hostile one (so that no binary seeds are needed), and what must hold whatever was loaded.
#pragma once

#include <string>

#include "tests/fuzz/fuzz_input.h"
#include "tests/support/kernel_images.h"
#include "vmm/boot/kernel.h"
#include "vmm/layout.h"

namespace fuzz {

// Patches of three bytes each: where (two bytes, wraps around), and the new value.
inline void patch(test::Bytes& image, std::span<const uint8_t> patches) {
  for (; patches.size() >= 3 && !image.empty(); patches = patches.subspan(3))
    image[(patches[0] | patches[1] << 8) % image.size()] = std::byte{patches[2]};
}

inline void load_hostile_kernel(std::span<const std::byte> image, vmm::boot::BootPath path) {
  auto memory = std::move(*vmm::GuestMemory::create(40 * vmm::layout::kMiB));
  vmm::boot::KernelSpec spec;
  spec.kernel_path = "fuzz";
  spec.boot_path = path;
  auto entry = vmm::boot::load_kernel_image(*memory, image, spec, vmm::layout::kAcpiTables);
  if (entry) {
    FUZZ_CHECK(entry->rip >= vmm::layout::kKernelStart);
    FUZZ_CHECK(memory->view(entry->rip, 1));
    FUZZ_CHECK(memory->is_dirty(entry->boot_data.gfn()));
  } else {
    FUZZ_CHECK(entry.error().text().find('\n') == std::string::npos);
  }
}

}  // namespace fuzz
