#include "vmm/boot/elf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "tests/support/kernel_images.h"
#include "vmm/boot/kernel.h"
#include "vmm/boot/pvh.h"
#include "vmm/layout.h"

namespace vmm::boot {
namespace {

using test::Bytes;
using test::ElfSpec;
using testing::HasSubstr;

constexpr Gpa kRsdp{0xE'0000};
const KernelSpec kSpec{.kernel_path = "vmlinux", .initrd_path = {}, .command_line = "a=b"};

std::unique_ptr<GuestMemory> guest(uint64_t mib) {
  return *GuestMemory::create(mib * layout::kMiB);
}

std::string error_of(std::span<const std::byte> image, uint64_t mib = 64) {
  auto entry = load_kernel_image(*guest(mib), image, kSpec, kRsdp);
  return entry ? "no error" : entry.error().text();
}

// A payload guest: linked to where it is loaded, entered by PVH.
ElfSpec payload_guest(bool is_64bit) {
  ElfSpec spec;
  spec.is_64bit = is_64bit;
  spec.machine = is_64bit ? EM_X86_64 : EM_386;
  spec.entry = 0;  // has no meaning for PVH
  spec.segments = {{.paddr = 0x10'0000, .vaddr = 0x10'0000, .content = test::code_like(5'000, 1)},
                   {.paddr = 0x20'0000,
                    .vaddr = 0x20'0000,
                    .content = test::code_like(3'000, 2),
                    .memsz = 0x1'0000}};
  spec.pvh_entry = 0x10'0040;
  return spec;
}

template <typename Header>
void change(Bytes& image, size_t offset, const std::function<void(Header&)>& adjust) {
  Header header;
  std::memcpy(&header, image.data() + offset, sizeof header);
  adjust(header);
  std::memcpy(image.data() + offset, &header, sizeof header);
}

TEST(Elf, PayloadGuestsOfBothClassesStartByPvh) {
  for (bool is_64bit : {false, true}) {
    ElfSpec spec = payload_guest(is_64bit);
    auto memory = guest(8);
    auto entry = load_kernel_image(*memory, test::make_elf(spec), kSpec, kRsdp);
    ASSERT_TRUE(entry) << entry.error().text();
    EXPECT_EQ(entry->mode, Entry::Mode::kProtected32);
    EXPECT_EQ(entry->rip, Gpa{0x10'0040});
    EXPECT_EQ(entry->boot_data, layout::kPvhStartInfo);
    for (const test::ElfSegment& segment : spec.segments) {
      Bytes loaded(segment.content.size());
      ASSERT_TRUE(memory->read(Gpa{segment.paddr}, loaded));
      EXPECT_TRUE(loaded == segment.content);
    }
    EXPECT_FALSE(memory->is_dirty(Gpa{0x20'1000}.gfn())) << "bss";
  }
}

TEST(Elf, FindsTheNoteWithBothAlignments) {
  for (uint64_t alignment : {4, 8}) {
    ElfSpec spec = payload_guest(true);
    spec.note_alignment = alignment;
    auto entry = find_pvh_entry(test::make_elf(spec));
    ASSERT_TRUE(entry) << entry.error().text();
    EXPECT_EQ(*entry, Gpa{0x10'0040});
  }
  ElfSpec without = payload_guest(true);
  without.pvh_entry.reset();
  EXPECT_EQ(*find_pvh_entry(test::make_elf(without)), std::nullopt);
}

TEST(Elf, SegmentsMayStartWithTheHeadersAndComeInAnyOrder) {
  ElfSpec spec = payload_guest(true);
  Bytes image = test::make_elf(spec);
  constexpr size_t kSecondLoad = sizeof(Elf64_Ehdr) + 2 * sizeof(Elf64_Phdr);
  // The first segment takes in the ELF header, as linkers do it; then both swap places.
  Elf64_Phdr first, second;
  std::memcpy(&first, image.data() + kSecondLoad - sizeof first, sizeof first);
  std::memcpy(&second, image.data() + kSecondLoad, sizeof second);
  uint64_t text_offset = first.p_offset;
  first.p_filesz = first.p_memsz = text_offset + 5'000;
  first.p_offset = 0;
  std::memcpy(image.data() + kSecondLoad - sizeof first, &second, sizeof second);
  std::memcpy(image.data() + kSecondLoad, &first, sizeof first);

  auto memory = guest(8);
  ASSERT_TRUE(load_kernel_image(*memory, image, kSpec, kRsdp));
  Bytes text(text_offset + 5'000);
  ASSERT_TRUE(memory->read(Gpa{0x10'0000}, text));
  EXPECT_EQ(std::memcmp(text.data(), image.data(), text.size()), 0);
  Bytes data(3'000);
  ASSERT_TRUE(memory->read(Gpa{0x20'0000}, data));
  EXPECT_TRUE(data == spec.segments[1].content);
}

TEST(Elf, AVmlinuxWithoutNoteStartsBy64BitProtocol) {
  auto memory = guest(64);
  auto entry = load_kernel_image(*memory, test::make_elf(test::small_vmlinux(4'000)), kSpec, kRsdp);
  ASSERT_TRUE(entry) << entry.error().text();
  EXPECT_EQ(entry->mode, Entry::Mode::kLong64);
  EXPECT_EQ(entry->rip, Gpa{0x100'0000});
  EXPECT_EQ(entry->boot_data, layout::kZeroPage);
}

TEST(Elf, RefusesProgramsThatAreNoKernels) {
  ElfSpec program = payload_guest(true);
  program.pvh_entry.reset();
  program.entry = 0x10'0000;
  EXPECT_THAT(error_of(test::make_elf(program)), HasSubstr("without PVH note"));
  program.is_64bit = false;
  program.machine = EM_386;
  EXPECT_THAT(error_of(test::make_elf(program)), HasSubstr("without PVH note"));
  program.type = ET_DYN;
  EXPECT_THAT(error_of(test::make_elf(program)), HasSubstr("fixed addresses"));
}

TEST(Elf, NamesTheArchitectureOfForeignKernels) {
  ElfSpec spec = test::small_vmlinux(1'000);
  spec.machine = EM_AARCH64;
  EXPECT_EQ(error_of(test::make_elf(spec)),
            "kernel vmlinux: the ELF image is for arm64 architecture (machine 183), not x86: give "
            "an x86-64 kernel");
  spec.machine = EM_RISCV;
  EXPECT_THAT(error_of(test::make_elf(spec)), HasSubstr("riscv"));
  spec.machine = EM_386;  // in a 64-bit image
  EXPECT_THAT(error_of(test::make_elf(spec)), HasSubstr("machine 3"));
  Bytes big_endian = test::make_elf(test::small_vmlinux(1'000));
  big_endian[EI_DATA] = std::byte{ELFDATA2MSB};
  EXPECT_THAT(error_of(big_endian), HasSubstr("big-endian"));
}

TEST(Elf, SaysHowMuchMemoryIsNeeded) {
  ElfSpec spec = test::small_vmlinux(1'000);
  spec.segments[0].memsz = 100 * layout::kMiB;
  EXPECT_THAT(error_of(test::make_elf(spec), 115),
              HasSubstr("needs memory up to 116 MiB, the guest has 115 MiB"));
  EXPECT_EQ(error_of(test::make_elf(spec), 116), "no error");
}

TEST(Elf, RefusesSegmentsOutsideOfWhereKernelsMayBe) {
  auto with_segment = [](uint64_t paddr, uint64_t memsz) {
    ElfSpec spec = test::small_vmlinux(1'000);
    spec.segments[0].paddr = paddr;
    spec.segments[0].memsz = memsz;
    return error_of(test::make_elf(spec));
  };
  EXPECT_THAT(with_segment(0, 4096), HasSubstr("not between 1 MiB"));
  EXPECT_THAT(with_segment(layout::kZeroPage.value, 4096), HasSubstr("not between 1 MiB"));
  EXPECT_THAT(with_segment(0xFFFFF, 4096), HasSubstr("not between 1 MiB"));
  EXPECT_THAT(with_segment(layout::kLowRamEnd.value - 4096, 4097), HasSubstr("not between 1 MiB"));
  EXPECT_THAT(with_segment(layout::kHighRamStart.value, 4096), HasSubstr("not between 1 MiB"));
  EXPECT_THAT(with_segment(~0ull - 4095, 4096), HasSubstr("not between 1 MiB"));
  EXPECT_THAT(with_segment(0x100'0000, ~0ull), HasSubstr("not between 1 MiB"));
}

TEST(Elf, RefusesContradictoryHeaders) {
  Bytes good = test::make_elf(test::small_vmlinux(8'000));
  auto with_header = [&](const std::function<void(Elf64_Ehdr&)>& adjust) {
    Bytes image = good;
    change<Elf64_Ehdr>(image, 0, adjust);
    return error_of(image);
  };
  auto with_segment = [&](const std::function<void(Elf64_Phdr&)>& adjust) {
    Bytes image = good;
    change<Elf64_Phdr>(image, sizeof(Elf64_Ehdr), adjust);
    return error_of(image);
  };
  EXPECT_THAT(with_header([](Elf64_Ehdr& header) { header.e_phoff = ~0ull; }),
              HasSubstr("truncated"));
  EXPECT_THAT(with_header([](Elf64_Ehdr& header) { header.e_phnum = 0xFFFF; }),
              HasSubstr("truncated"));
  EXPECT_THAT(with_header([](Elf64_Ehdr& header) { header.e_phnum = 0; }),
              HasSubstr("no program headers"));
  EXPECT_THAT(with_header([](Elf64_Ehdr& header) { header.e_phentsize = 1; }),
              HasSubstr("no program headers"));
  EXPECT_THAT(with_header([](Elf64_Ehdr& header) { header.e_shoff = ~0ull; }),
              HasSubstr("corrupt"));
  EXPECT_THAT(with_header([](Elf64_Ehdr& header) { header.e_entry = 0xFF'FFFF; }),
              HasSubstr("without PVH note"));
  EXPECT_THAT(with_segment([](Elf64_Phdr& segment) { segment.p_type = PT_NULL; }),
              HasSubstr("nothing to load"));
  EXPECT_THAT(with_segment([](Elf64_Phdr& segment) { segment.p_filesz = segment.p_memsz + 1; }),
              HasSubstr("larger in the file"));
  EXPECT_NE(with_segment([](Elf64_Phdr& segment) { segment.p_offset = ~0ull - 10; }), "no error");
  EXPECT_NE(with_segment([&](Elf64_Phdr& segment) { segment.p_offset = good.size() - 7'999; }),
            "no error");
}

TEST(Elf, RefusesADamagedNote) {
  constexpr size_t kNote = sizeof(Elf64_Ehdr) + 3 * sizeof(Elf64_Phdr);
  auto with_note = [&](const std::function<void(Elf64_Nhdr&)>& adjust) {
    Bytes image = test::make_elf(payload_guest(true));
    change<Elf64_Nhdr>(image, kNote, adjust);
    return error_of(image);
  };
  EXPECT_EQ(with_note([](Elf64_Nhdr&) {}), "no error");
  EXPECT_THAT(with_note([](Elf64_Nhdr& note) { note.n_namesz = ~0u; }), HasSubstr("corrupt"));
  EXPECT_THAT(with_note([](Elf64_Nhdr& note) { note.n_descsz = ~0u; }), HasSubstr("corrupt"));
  EXPECT_THAT(with_note([](Elf64_Nhdr& note) { note.n_descsz = 3; }), HasSubstr("corrupt"));
  EXPECT_THAT(with_note([](Elf64_Nhdr& note) { note.n_type = 17; }), HasSubstr("without PVH note"));
  ElfSpec outside = payload_guest(true);
  outside.pvh_entry = 0x1'0010'0040;
  EXPECT_THAT(error_of(test::make_elf(outside)), HasSubstr("in none of the ELF segments"));
}

TEST(Elf, TruncatedAnywhereIsRefused) {
  auto memory = guest(64);
  for (const ElfSpec& spec :
       {payload_guest(true), payload_guest(false), test::small_vmlinux(6'000)}) {
    Bytes image = test::make_elf(spec);
    ASSERT_TRUE(load_kernel_image(*memory, image, kSpec, kRsdp));
    for (size_t size = 0; size < image.size(); ++size) {
      Bytes cut(image.begin(), image.begin() + static_cast<ptrdiff_t>(size));
      EXPECT_FALSE(load_kernel_image(*memory, cut, kSpec, kRsdp)) << "cut to " << size;
    }
  }
}

TEST(Elf, RandomDamageNeverCrashes) {
  auto memory = guest(64);
  std::mt19937 random(13);
  for (const ElfSpec& spec :
       {payload_guest(true), payload_guest(false), test::small_vmlinux(6'000)}) {
    Bytes image = test::make_elf(spec);
    for (int round = 0; round < 2'000; ++round) {
      Bytes damaged = image;
      size_t range = round % 4 == 0 ? damaged.size() : 280;  // mostly the headers
      for (int flips = 0; flips < 1 + round % 4; ++flips)
        damaged[random() % range] ^= std::byte{static_cast<uint8_t>(1 + random() % 255)};
      auto entry = load_kernel_image(*memory, damaged, kSpec, kRsdp);
      if (!entry) continue;
      EXPECT_GE(entry->rip, layout::kKernelStart);
      EXPECT_TRUE(memory->view(entry->rip, 1));
    }
  }
}

}  // namespace
}  // namespace vmm::boot
