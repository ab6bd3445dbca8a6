#include "vmm/boot/elf.h"

#include <elf.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <string_view>
#include <vector>

#include "vmm/boot/memory_map.h"
#include "vmm/layout.h"

namespace vmm::boot {
namespace {

using base::fail;
using base::Result;
using Bytes = std::span<const std::byte>;

// The headers of both classes, in the wider type.
struct Headers {
  bool is_64bit = false;
  uint64_t entry = 0;
  uint64_t sections_end = 0;  // the section headers are the last thing in the file; 0: none
  std::vector<Elf64_Phdr> segments;
};

// Program headers follow the ELF header in every linker's output; this many bytes hold 71 of them.
constexpr size_t kHeadSize = 4096;

std::string_view machine_name(uint16_t machine) {
  switch (machine) {
    case EM_AARCH64:
      return "arm64";
    case EM_ARM:
      return "arm";
    case EM_RISCV:
      return "riscv";
    case EM_PPC64:
      return "powerpc";
    case EM_S390:
      return "s390";
    case EM_LOONGARCH:
      return "loongarch";
    default:
      return "another";
  }
}

Elf64_Phdr widen(const Elf64_Phdr& header) { return header; }
Elf64_Phdr widen(const Elf32_Phdr& header) {
  Elf64_Phdr wide{};
  wide.p_type = header.p_type;
  wide.p_flags = header.p_flags;
  wide.p_offset = header.p_offset;
  wide.p_vaddr = header.p_vaddr;
  wide.p_paddr = header.p_paddr;
  wide.p_filesz = header.p_filesz;
  wide.p_memsz = header.p_memsz;
  wide.p_align = header.p_align;
  return wide;
}

template <typename Ehdr, typename Phdr>
Result<Headers> parse_class(Bytes head, uint16_t machine_wanted) {
  Ehdr header;
  if (head.size() < sizeof header) return fail("the ELF image is truncated (header)");
  std::memcpy(&header, head.data(), sizeof header);
  if (header.e_machine != machine_wanted)
    return fail(
        fmt::format("the ELF image is for {} architecture (machine {}), not x86: give an "
                    "x86-64 kernel",
                    machine_name(header.e_machine), header.e_machine));
  if (header.e_type != ET_EXEC)
    return fail("the ELF image is not an executable with fixed addresses: give a vmlinux");
  if (header.e_phentsize != sizeof(Phdr) || header.e_phnum == 0)
    return fail("the ELF image has no program headers that could be loaded");
  if (header.e_phoff > head.size() ||
      header.e_phnum > (head.size() - header.e_phoff) / sizeof(Phdr))
    return fail(
        fmt::format("the ELF image is truncated, or its {} program headers are not in its "
                    "first {} bytes",
                    header.e_phnum, kHeadSize));
  Headers headers;
  headers.is_64bit = machine_wanted == EM_X86_64;
  headers.entry = header.e_entry;
  uint64_t sections_size = uint64_t{header.e_shnum} * header.e_shentsize;
  if (__builtin_add_overflow(uint64_t{header.e_shoff}, sections_size, &headers.sections_end))
    return fail("the ELF image is corrupt (section headers)");
  for (size_t i = 0; i < header.e_phnum; ++i) {
    Phdr segment;
    std::memcpy(&segment, head.data() + header.e_phoff + i * sizeof segment, sizeof segment);
    headers.segments.push_back(widen(segment));
  }
  return headers;
}

Result<Headers> parse_headers(Bytes head) {
  if (head.size() < EI_NIDENT || std::memcmp(head.data(), ELFMAG, SELFMAG) != 0)
    return fail("holds no ELF image, or a damaged one");
  if (std::to_integer<int>(head[EI_DATA]) != ELFDATA2LSB)
    return fail("the ELF image is big-endian, not x86: give an x86-64 kernel");
  switch (std::to_integer<int>(head[EI_CLASS])) {
    case ELFCLASS64:
      return parse_class<Elf64_Ehdr, Elf64_Phdr>(head, EM_X86_64);
    case ELFCLASS32:
      return parse_class<Elf32_Ehdr, Elf32_Phdr>(head, EM_386);
    default:
      return fail("the ELF image is neither 32-bit nor 64-bit");
  }
}

// The end of a segment that lies where kernels may be; what RAM there is, is not considered.
Result<uint64_t> checked_end(const Elf64_Phdr& segment) {
  if (segment.p_filesz > segment.p_memsz)
    return fail(fmt::format("the ELF segment at {:#x} is larger in the file than in memory",
                            segment.p_paddr));
  uint64_t end = 0;
  if (__builtin_add_overflow(segment.p_paddr, segment.p_memsz, &end) ||
      end > layout::kLowRamEnd.value || segment.p_paddr < layout::kKernelStart.value)
    return fail(
        fmt::format("the ELF segment at {:#x} with {:#x} bytes is not between 1 MiB and {} "
                    "MiB, where kernels are loaded",
                    segment.p_paddr, segment.p_memsz, layout::kLowRamEnd.value / layout::kMiB));
  return end;
}

// The image as a stream whose first bytes, read already for the headers, can be had again.
class Stream {
 public:
  Stream(ByteSource& source, uint64_t size_max) : source_(source), size_max_(size_max) {}

  Result<Bytes> read_head() {
    TRY_ASSIGN(size_t size,
               source_.read(std::span(head_).first(std::min<uint64_t>(head_.size(), size_max_))));
    position_ = size;
    return Bytes(head_).first(size);
  }

  // Offsets must not go back, but into the head.
  Result<void> read_at(uint64_t offset, std::span<std::byte> into) {
    if (offset > size_max_ || into.size() > size_max_ - offset) return too_large();
    uint64_t head_end = std::min<uint64_t>(position_, head_.size());
    if (offset < head_end) {
      size_t size = std::min<uint64_t>(into.size(), head_end - offset);
      std::memcpy(into.data(), head_.data() + offset, size);
      into = into.subspan(size);
      offset += size;
    }
    if (into.empty()) return {};
    if (offset < position_) return fail("the segments of the ELF image overlap in the file");
    TRY_ASSIGN(uint64_t skipped, source_.skip(offset - position_));
    TRY_ASSIGN(size_t size, source_.read(into));
    position_ += skipped + size;
    if (size < into.size()) return fail("the ELF image is truncated");
    return {};
  }

  // Returns the size of the whole image.
  Result<uint64_t> read_to_end() {
    TRY_ASSIGN(uint64_t skipped, source_.skip(size_max_ - position_ + 1));
    position_ += skipped;
    if (position_ > size_max_) return too_large();
    return position_;
  }

 private:
  std::unexpected<base::Error> too_large() const {
    return fail(
        fmt::format("the unpacked image is larger than the {} bytes it declares", size_max_));
  }

  ByteSource& source_;
  uint64_t size_max_;
  uint64_t position_ = 0;
  std::array<std::byte, kHeadSize> head_{};
};

// Looks for the note in one PT_NOTE segment (ELF gABI, "Note Section").
Result<std::optional<Gpa>> find_note(Bytes notes, uint64_t alignment) {
  constexpr uint32_t kPhys32Entry = 18;  // XEN_ELFNOTE_PHYS32_ENTRY, xen/include/public/elfnote.h
  constexpr std::string_view kName("Xen\0", 4);
  auto padded = [&](uint64_t size) { return (size + alignment - 1) / alignment * alignment; };
  while (notes.size() >= sizeof(Elf64_Nhdr)) {
    Elf64_Nhdr note;
    std::memcpy(&note, notes.data(), sizeof note);
    uint64_t description = padded(sizeof note + note.n_namesz);
    if (description > notes.size() || note.n_descsz > notes.size() - description)
      return fail("the notes of the ELF image are corrupt");
    if (note.n_type == kPhys32Entry && note.n_namesz == kName.size() &&
        std::memcmp(notes.data() + sizeof note, kName.data(), kName.size()) == 0) {
      uint64_t entry = 0;
      if (note.n_descsz != 4 && note.n_descsz != 8)
        return fail("the PVH note of the ELF image is corrupt");
      std::memcpy(&entry, notes.data() + description, note.n_descsz);
      return Gpa{entry};
    }
    notes = notes.subspan(std::min(padded(description + note.n_descsz), notes.size()));
  }
  return std::nullopt;
}

}  // namespace

Result<LoadedElf> load_elf(GuestMemory& memory, ByteSource& source, uint64_t size_max) {
  Stream stream(source, size_max);
  TRY_ASSIGN(Bytes head, stream.read_head());
  TRY_ASSIGN(Headers headers, parse_headers(head));
  std::erase_if(headers.segments, [](const Elf64_Phdr& segment) {
    return segment.p_type != PT_LOAD || segment.p_memsz == 0;
  });
  std::ranges::sort(headers.segments, {}, &Elf64_Phdr::p_offset);

  LoadedElf loaded;
  loaded.is_64bit = headers.is_64bit;
  for (const Elf64_Phdr& segment : headers.segments) {
    TRY_ASSIGN(uint64_t end, checked_end(segment));
    loaded.end = std::max(loaded.end, end);
  }
  if (loaded.end == 0) return fail("the ELF image has nothing to load");
  if (loaded.end > low_ram_end(memory))
    return fail(fmt::format("needs memory up to {} MiB, the guest has {} MiB: give more --memory",
                            (loaded.end + layout::kMiB - 1) / layout::kMiB,
                            low_ram_end(memory) / layout::kMiB));
  for (const Elf64_Phdr& segment : headers.segments) {
    if (segment.p_filesz > 0) {
      TRY_ASSIGN(auto place, memory.dma_target(Gpa{segment.p_paddr}, segment.p_filesz));
      TRY(stream.read_at(segment.p_offset, place));
      memory.mark_dirty(Gpa{segment.p_paddr}, segment.p_filesz);
    }
    if (headers.entry >= segment.p_paddr && headers.entry - segment.p_paddr < segment.p_filesz) {
      loaded.entry = Gpa{headers.entry};
      loaded.high_half = segment.p_vaddr >> 63 != 0;
    }
  }
  TRY_ASSIGN(uint64_t size, stream.read_to_end());
  if (size < headers.sections_end)
    return fail(fmt::format("the ELF image is truncated: it has {} of {} bytes", size,
                            headers.sections_end));
  return loaded;
}

Result<std::optional<Gpa>> find_pvh_entry(Bytes image) {
  TRY_ASSIGN(Headers headers, parse_headers(image.first(std::min(image.size(), kHeadSize))));
  for (const Elf64_Phdr& segment : headers.segments) {
    if (segment.p_type != PT_NOTE) continue;
    if (segment.p_offset > image.size() || segment.p_filesz > image.size() - segment.p_offset)
      return fail("the ELF image is truncated (notes)");
    TRY_ASSIGN(
        std::optional<Gpa> entry,
        find_note(image.subspan(segment.p_offset, segment.p_filesz), segment.p_align == 8 ? 8 : 4));
    if (!entry) continue;
    bool loaded = std::ranges::any_of(headers.segments, [&](const Elf64_Phdr& load) {
      return load.p_type == PT_LOAD && entry->value >= load.p_paddr &&
             entry->value - load.p_paddr < load.p_filesz;
    });
    if (!loaded)
      return fail(
          fmt::format("the PVH entry point {:#x} is in none of the ELF segments", entry->value));
    return entry;
  }
  return std::nullopt;
}

}  // namespace vmm::boot
