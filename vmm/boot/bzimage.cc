#include "vmm/boot/bzimage.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "vmm/boot/byte_source.h"
#include "vmm/boot/elf.h"
#include "vmm/boot/memory_map.h"
#include "vmm/layout.h"

namespace vmm::boot {
namespace {

using base::fail;
using base::Result;
using Bytes = std::span<const std::byte>;

constexpr size_t kHeaderOffset = 0x1F1;
constexpr size_t kJumpOffset = 0x200;  // a two-byte jump over the header: tells where it ends
constexpr size_t kSectorSize = 512;
constexpr uint32_t kHeaderMagic = 0x53726448;  // "HdrS"
constexpr uint16_t kBootFlag = 0xAA55;
constexpr uint16_t kVersionMin = 0x020C;    // the first with xloadflags
constexpr uint64_t kEntry64Offset = 0x200;  // boot.rst, "64-bit Boot Protocol"

static_assert(offsetof(setup_header, jump) == kJumpOffset - kHeaderOffset);
static_assert(offsetof(setup_header, header) == 0x202 - kHeaderOffset);
static_assert(offsetof(setup_header, init_size) == 0x260 - kHeaderOffset);

setup_header copy_header(Bytes image) {
  setup_header header{};
  size_t end = kJumpOffset + 2 + std::to_integer<size_t>(image[kJumpOffset + 1]);
  size_t size = std::min({sizeof header, end - kHeaderOffset, image.size() - kHeaderOffset});
  std::memcpy(&header, image.data() + kHeaderOffset, size);
  return header;
}

}  // namespace

bool is_bzimage(Bytes image) {
  if (image.size() < kHeaderOffset + offsetof(setup_header, version)) return false;
  setup_header header = copy_header(image);
  return header.boot_flag == kBootFlag && header.header == kHeaderMagic;
}

Result<BzImage> parse_bzimage(Bytes image) {
  constexpr uint8_t kSetupSectorsDefault = 4;
  BzImage kernel{copy_header(image), {}, {}};
  const setup_header& header = kernel.header;
  size_t setup_sectors = header.setup_sects == 0 ? kSetupSectorsDefault : header.setup_sects;
  uint64_t start = (setup_sectors + 1) * kSectorSize;
  uint64_t size = uint64_t{header.syssize} * 16;
  if (image.size() < kHeaderOffset + sizeof header || image.size() < start + size)
    return fail(fmt::format("is truncated: it has {} bytes, its header says {}: copy it again",
                            image.size(), start + size));
  if (header.version < kVersionMin)
    return fail(
        fmt::format("speaks boot protocol {}.{:02}, at least 2.12 is needed: give Linux "
                    "3.8 or newer",
                    header.version >> 8, header.version & 0xFF));
  if (!(header.xloadflags & XLF_KERNEL_64))
    return fail("is a 32-bit kernel, without 64-bit entry point: give an x86-64 kernel");
  if (!(header.loadflags & LOADED_HIGH))
    return fail("is a zImage, to be loaded below 1 MiB: give a bzImage");
  kernel.protected_mode = image.subspan(start, size);
  if (header.payload_offset > size || header.payload_length > size - header.payload_offset)
    return fail("is corrupt: its payload lies outside of the file");
  kernel.payload = kernel.protected_mode.subspan(header.payload_offset, header.payload_length);
  return kernel;
}

Result<PlacedKernel> load_unpacked(GuestMemory& memory, const BzImage& kernel) {
  TRY_ASSIGN(auto source, unpacking_source(kernel.payload));
  // The stub unpacks in place within init_size, so the payload cannot be larger.
  TRY_ASSIGN(LoadedElf elf, load_elf(memory, *source, kernel.header.init_size));
  if (!elf.is_64bit || !elf.entry)
    return fail("the kernel inside has no 64-bit entry point: boot it with --boot=stub");
  return PlacedKernel{*elf.entry, elf.end};
}

Result<PlacedKernel> load_with_stub(GuestMemory& memory, BzImage& kernel) {
  setup_header& header = kernel.header;
  uint64_t alignment = header.kernel_alignment;
  if (!std::has_single_bit(alignment) || alignment > layout::kLowRamEnd.value)
    return fail(fmt::format("is corrupt: it wants an alignment of {:#x}", alignment));
  if (header.pref_address > layout::kLowRamEnd.value)
    return fail(fmt::format("wants to run at {:#x}, above {} MiB, where it cannot be loaded",
                            uint64_t{header.pref_address},
                            layout::kLowRamEnd.value / layout::kMiB));
  // Where it runs. One that is not relocatable is loaded at 1 MiB and moves itself there.
  uint64_t base = std::max<uint64_t>(header.pref_address, layout::kKernelStart.value);
  base = (base + alignment - 1) & ~(alignment - 1);
  uint64_t load = header.relocatable_kernel != 0 ? base : layout::kKernelStart.value;
  uint64_t end = std::max(base + header.init_size, load + kernel.protected_mode.size());
  if (end > low_ram_end(memory))
    return fail(fmt::format("needs memory up to {} MiB, the guest has {} MiB: give more --memory",
                            (end + layout::kMiB - 1) / layout::kMiB,
                            low_ram_end(memory) / layout::kMiB));
  if (kernel.protected_mode.size() <= kEntry64Offset) return fail("is corrupt: it has no code");
  TRY(memory.write(Gpa{load}, kernel.protected_mode));
  header.code32_start = static_cast<uint32_t>(load);
  return PlacedKernel{Gpa{load + kEntry64Offset}, end};
}

}  // namespace vmm::boot
