#include "vmm/boot/kernel.h"

#include <fmt/format.h>

#include <cstring>
#include <string_view>

#include "vmm/base/mapping.h"
#include "vmm/boot/boot_data.h"
#include "vmm/boot/bzimage.h"
#include "vmm/boot/cpu_tables.h"
#include "vmm/boot/elf.h"
#include "vmm/boot/memory_map.h"
#include "vmm/boot/pvh.h"
#include "vmm/boot/zero_page.h"
#include "vmm/layout.h"

namespace vmm::boot {
namespace {

using base::fail;
using base::Result;
using Bytes = std::span<const std::byte>;

// A kernel in guest memory, and how it wants the rest.
struct Placed {
  Entry::Mode mode = Entry::Mode::kLong64;
  PlacedKernel kernel;
  setup_header header = default_setup_header();
};

bool has_magic(Bytes image, size_t offset, std::string_view magic) {
  return image.size() >= offset + magic.size() &&
         std::memcmp(image.data() + offset, magic.data(), magic.size()) == 0;
}

// What was given instead of a kernel that can be booted?
std::unexpected<base::Error> not_a_kernel(Bytes image) {
  using namespace std::string_view_literals;
  if (image.empty()) return fail("is empty");
  if (has_magic(image, 0x38, "ARM\x64"sv)) return fail("is an arm64 kernel: give an x86-64 kernel");
  if (has_magic(image, 0x38, "RSC\x05"sv)) return fail("is a riscv kernel: give an x86-64 kernel");
  if (has_magic(image, 0, "MZ"sv) && has_magic(image, 4, "zimg"sv))
    return fail("is an EFI zboot image, which x86 does not have: give an x86-64 bzImage");
  if (has_magic(image, 0, "070701"sv)) return fail("is a cpio archive: give it with --initrd");
  if (has_magic(image, 0, "\x1f\x8b"sv) || has_magic(image, 0, "\x28\xb5\x2f\xfd"sv) ||
      has_magic(image, 0,
                "\xfd"
                "7zXZ"sv))
    return fail("is a compressed file, not a kernel: unpack it, or give it with --initrd");
  return fail("is not a kernel (neither a bzImage nor an ELF image), or is truncated");
}

Result<Placed> place_bzimage(GuestMemory& memory, Bytes image, BootPath path) {
  TRY_ASSIGN(BzImage bzimage, parse_bzimage(image));
  TRY_ASSIGN(PlacedKernel kernel, path == BootPath::kStub ? load_with_stub(memory, bzimage)
                                                          : load_unpacked(memory, bzimage));
  return Placed{Entry::Mode::kLong64, kernel, bzimage.header};
}

Result<Placed> place_elf(GuestMemory& memory, Bytes image) {
  TRY_ASSIGN(auto pvh_entry, find_pvh_entry(image));
  auto source = plain_source(image);
  TRY_ASSIGN(LoadedElf elf, load_elf(memory, *source, image.size()));
  Placed placed;
  if (pvh_entry) {
    placed.mode = Entry::Mode::kProtected32;
    placed.kernel = {*pvh_entry, elf.end};
    return placed;
  }
  // Only Linux enters an image at a physical address that it is not linked to.
  if (!elf.is_64bit || !elf.entry || !elf.high_half)
    return fail(
        "is an ELF image without PVH note (XEN_ELFNOTE_PHYS32_ENTRY): give a kernel built "
        "with CONFIG_PVH, or a bzImage");
  placed.kernel = {*elf.entry, elf.end};
  return placed;
}

Result<Placed> place_kernel(GuestMemory& memory, Bytes image, BootPath path) {
  if (has_magic(image, 0,
                "\x7f"
                "ELF"))
    return place_elf(memory, image);
  if (is_bzimage(image)) return place_bzimage(memory, image, path);
  return not_a_kernel(image);
}

}  // namespace

Result<Entry> load_kernel(GuestMemory& memory, const KernelSpec& spec, Gpa rsdp) {
  auto file = base::Mapping::file(spec.kernel_path);
  if (!file) return std::unexpected(file.error().with("kernel"));
  return load_kernel_image(memory, file->bytes(), spec, rsdp);
}

Result<Entry> load_kernel_image(GuestMemory& memory, Bytes image, const KernelSpec& spec,
                                Gpa rsdp) {
  if (low_ram_end(memory) <= layout::kKernelStart.value)
    return fail("memory too small for any kernel: give more --memory");
  auto placed = place_kernel(memory, image, spec.boot_path);
  if (!placed) return std::unexpected(placed.error().with("kernel " + spec.kernel_path));

  BootData data;
  data.rsdp = rsdp;
  data.command_line = layout::kCommandLine;
  TRY(write_command_line(memory, spec.command_line, placed->header.cmdline_size));
  if (spec.initrd_path) {
    TRY(load_initrd(memory, *spec.initrd_path, placed->kernel.end,
                    uint64_t{placed->header.initrd_addr_max} + 1, data));
  }

  Entry entry{placed->mode, placed->kernel.entry, {}};
  switch (entry.mode) {
    case Entry::Mode::kLong64:
      TRY(write_zero_page(memory, placed->header, data));
      entry.boot_data = layout::kZeroPage;
      break;
    case Entry::Mode::kProtected32:
      TRY(write_start_info(memory, data));
      entry.boot_data = layout::kPvhStartInfo;
      break;
  }
  TRY(write_cpu_tables(memory, entry.mode));
  return entry;
}

}  // namespace vmm::boot
