// bzImage: setup header, protected-mode part, compressed payload (boot.rst, "The Real-Mode Kernel
// Header"). Everything in the file is hostile; parse_bzimage() checks what later steps rely on.
#pragma once

#include <asm/bootparam.h>

#include <cstddef>
#include <cstdint>
#include <span>

#include "vmm/base/result.h"
#include "vmm/guest_memory.h"

namespace vmm::boot {

struct BzImage {
  setup_header header;
  std::span<const std::byte> protected_mode;  // whole, as long as the header says
  std::span<const std::byte> payload;         // inside protected_mode
};

struct PlacedKernel {
  Gpa entry;         // 64-bit entry point
  uint64_t end = 0;  // the first byte that an initrd may use
};

// Does `image` have the signature of a bzImage?
bool is_bzimage(std::span<const std::byte> image);
// The result points into `image`.
base::Result<BzImage> parse_bzimage(std::span<const std::byte> image);

// Unpacks the payload and loads the vmlinux inside.
base::Result<PlacedKernel> load_unpacked(GuestMemory& memory, const BzImage& kernel);
// Loads the protected-mode part, which unpacks itself; notes the place in the header.
base::Result<PlacedKernel> load_with_stub(GuestMemory& memory, BzImage& kernel);

}  // namespace vmm::boot
