// Kernels made up for the loaders' tests and fuzz seeds: ELF images and bzImages with given
// contents, packed in every format that the loader unpacks.
#pragma once

#include <asm/bootparam.h>
#include <elf.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace test {

using Bytes = std::vector<std::byte>;

enum class Packing { kGzip, kXz, kXzBcj, kLzma, kZstd, kBzip2, kLz4Legacy, kLzop, kNone };
inline constexpr Packing kAllPackings[] = {Packing::kGzip,      Packing::kXz,   Packing::kXzBcj,
                                           Packing::kLzma,      Packing::kZstd, Packing::kBzip2,
                                           Packing::kLz4Legacy, Packing::kLzop, Packing::kNone};
std::string name(Packing packing);

// `data` packed as the kernel's build does it.
Bytes pack(Packing packing, std::span<const std::byte> data);

// Reproducible content that packs somewhat, with what looks like x86 calls in it (the BCJ filter
// rewrites those).
Bytes code_like(size_t size, uint32_t seed);

struct ElfSegment {
  uint64_t paddr = 0x100'0000;
  uint64_t vaddr = 0xFFFF'FFFF'8100'0000;
  Bytes content;
  uint64_t memsz = 0;  // 0: the size of the content
};

struct ElfSpec {
  bool is_64bit = true;
  uint16_t machine = EM_X86_64;
  uint16_t type = ET_EXEC;
  uint64_t entry = 0x100'0000;
  std::vector<ElfSegment> segments;
  std::optional<uint64_t> pvh_entry;  // as XEN_ELFNOTE_PHYS32_ENTRY
  uint64_t note_alignment = 4;
};

// Headers, notes, segments, and one (empty) section header as the last thing in the file.
Bytes make_elf(const ElfSpec& spec);

// A vmlinux of one code segment of `code_size` bytes at 16 MiB with 64 KiB of bss behind it.
ElfSpec small_vmlinux(size_t code_size);

// A bzImage with `payload`, to which the size of `unpacked_size` bytes is appended as kernels do
// it where the format has no size of its own. `adjust` may change the header at the end.
Bytes make_bzimage(std::span<const std::byte> payload, uint32_t unpacked_size,
                   const std::function<void(setup_header&)>& adjust = {});
Bytes make_bzimage(Packing packing, std::span<const std::byte> vmlinux,
                   const std::function<void(setup_header&)>& adjust = {});

// Where make_bzimage() puts things.
inline constexpr size_t kBzImageProtectedStart = 1024;
inline constexpr size_t kBzImagePayloadOffset = 0x240;

}  // namespace test
