// ELF images of kernels: the vmlinux inside a bzImage (a forward-only stream), a vmlinux file, a
// payload guest. Loads by physical address. Bytes are hostile: every range is checked against guest
// RAM and against overflow before it is used.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "vmm/base/result.h"
#include "vmm/boot/byte_source.h"
#include "vmm/guest_memory.h"

namespace vmm::boot {

struct LoadedElf {
  std::optional<Gpa> entry;  // e_entry, where that is a physical address inside a segment
  uint64_t end = 0;          // where the last segment, with its bss, ends
  bool is_64bit = false;     // else 32-bit x86
  bool high_half = false;    // entered at a segment linked to the upper half of the address space
};

// Copies the segments of the image that `source` gives, at most `size_max` bytes of it, into fresh
// guest memory, whose zero pages are the bss. Reads the source to its end: only then are checksums
// checked.
base::Result<LoadedElf> load_elf(GuestMemory& memory, ByteSource& source, uint64_t size_max);

// The 32-bit entry point of the note XEN_ELFNOTE_PHYS32_ENTRY; none where there is no such note.
base::Result<std::optional<Gpa>> find_pvh_entry(std::span<const std::byte> image);

}  // namespace vmm::boot
