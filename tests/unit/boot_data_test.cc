#include "vmm/boot/boot_data.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>

#include "tests/support/kernel_images.h"
#include "vmm/boot/kernel.h"
#include "vmm/boot/memory_map.h"
#include "vmm/boot/pvh.h"
#include "vmm/layout.h"

namespace vmm::boot {
namespace {

using test::Bytes;
using testing::ElementsAre;
using testing::HasSubstr;
using Type = MemoryRange::Type;

constexpr Gpa kRsdp{0xE'0040};

std::unique_ptr<GuestMemory> guest(uint64_t bytes) { return *GuestMemory::create(bytes); }

class BootDataTest : public testing::Test {
 protected:
  BootDataTest() {
    std::string pattern = (std::filesystem::temp_directory_path() / "minivmm-boot-XXXXXX").string();
    folder_ = ::mkdtemp(pattern.data());
  }
  ~BootDataTest() override { std::filesystem::remove_all(folder_); }

  std::string file(const std::string& name, std::span<const std::byte> content) {
    std::string path = folder_ / name;
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(content.data()),
               static_cast<std::streamsize>(content.size()));
    return path;
  }
  // A file that takes no room on the disk.
  std::string sparse_file(const std::string& name, uint64_t size) {
    std::string path = file(name, {});
    std::filesystem::resize_file(path, size);
    return path;
  }
  std::filesystem::path folder_;
};

TEST(MemoryMap, SmallGuestHasNoRamAboveTheHole) {
  EXPECT_THAT(memory_map(*guest(256 * layout::kMiB)),
              ElementsAre(MemoryRange{Gpa{0}, 0xA'0000, Type::kRam},
                          MemoryRange{Gpa{0xE'0000}, 0x1'F000, Type::kAcpi},
                          MemoryRange{Gpa{0xF'F000}, 0x1000, Type::kReserved},
                          MemoryRange{Gpa{0x10'0000}, 255 * layout::kMiB, Type::kRam},
                          MemoryRange{Gpa{0xE000'0000}, 0x10'0000, Type::kReserved},
                          MemoryRange{Gpa{0xFFFB'C000}, 0x4000, Type::kReserved}));
}

TEST(MemoryMap, LargeGuestsContinueAboveFourGiB) {
  for (uint64_t gib : {6, 64}) {
    auto map = memory_map(*guest(gib * layout::kGiB));
    ASSERT_EQ(map.size(), 7u);
    EXPECT_EQ(map[3], (MemoryRange{Gpa{0x10'0000}, 3 * layout::kGiB - layout::kMiB, Type::kRam}));
    EXPECT_EQ(map[6], (MemoryRange{Gpa{4 * layout::kGiB}, (gib - 3) * layout::kGiB, Type::kRam}));
    for (size_t i = 1; i < map.size(); ++i)
      EXPECT_LE(map[i - 1].start.value + map[i - 1].size, map[i].start.value);
  }
}

TEST_F(BootDataTest, ZeroPageTellsLinuxEverything) {
  auto memory = guest(6 * layout::kGiB);
  Bytes initrd = test::code_like(10'001, 5);
  Bytes image =
      test::make_bzimage(test::Packing::kLz4Legacy, test::make_elf(test::small_vmlinux(1'000)),
                         [](setup_header& header) {
                           header.loadflags |= CAN_USE_HEAP;
                           header.setup_data = 0x1234;
                           header.vid_mode = 0xFFFF;
                         });
  KernelSpec spec{.kernel_path = file("vmlinuz", image),
                  .initrd_path = file("initrd", initrd),
                  .command_line = "console=ttyS0 panic=-1"};
  auto entry = load_kernel(*memory, spec, kRsdp);
  ASSERT_TRUE(entry) << entry.error().text();

  auto params = *memory->load<boot_params>(layout::kZeroPage);
  EXPECT_EQ(+params.hdr.header, 0x5372'6448u);
  EXPECT_EQ(+params.hdr.type_of_loader, 0xFF);
  EXPECT_EQ(+params.hdr.loadflags, LOADED_HIGH);
  EXPECT_EQ(+params.hdr.setup_data, 0u);
  EXPECT_EQ(+params.hdr.vid_mode, 0xFFFF) << "the kernel's own fields are kept";
  EXPECT_EQ(+params.sentinel, 0);
  EXPECT_EQ(+params.acpi_rsdp_addr, kRsdp.value);

  std::string command_line(spec.command_line.size() + 1, 'x');
  ASSERT_TRUE(
      memory->read(Gpa{params.hdr.cmd_line_ptr}, std::as_writable_bytes(std::span(command_line))));
  EXPECT_EQ(command_line, spec.command_line + '\0');
  EXPECT_EQ(+params.ext_cmd_line_ptr, 0u);

  // initrd_addr_max of this kernel is below the end of low RAM.
  EXPECT_EQ(+params.hdr.ramdisk_image, 0x8000'0000 - 3 * kPageSize);
  EXPECT_EQ(+params.hdr.ramdisk_size, initrd.size());
  EXPECT_EQ(+params.ext_ramdisk_image, 0u);
  EXPECT_EQ(+params.ext_ramdisk_size, 0u);
  Bytes loaded(initrd.size());
  ASSERT_TRUE(memory->read(Gpa{params.hdr.ramdisk_image}, loaded));
  EXPECT_TRUE(loaded == initrd);
  EXPECT_TRUE(memory->is_dirty(Gpa{params.hdr.ramdisk_image}.gfn()));
  EXPECT_TRUE(memory->is_dirty(Gpa{params.hdr.ramdisk_image + initrd.size() - 1}.gfn()));

  auto map = memory_map(*memory);
  ASSERT_EQ(+params.e820_entries, map.size());
  for (size_t i = 0; i < map.size(); ++i) {
    boot_e820_entry range = params.e820_table[i];
    EXPECT_EQ(range.addr, map[i].start.value);
    EXPECT_EQ(range.size, map[i].size);
    EXPECT_EQ(range.type, static_cast<uint32_t>(map[i].type));
  }
}

TEST_F(BootDataTest, StartInfoTellsAPvhGuestTheSame) {
  auto memory = guest(6 * layout::kGiB);
  Bytes initrd = test::code_like(5'000, 6);
  test::ElfSpec elf = test::small_vmlinux(1'000);
  elf.pvh_entry = 0x100'0010;
  KernelSpec spec{.kernel_path = file("payload.elf", test::make_elf(elf)),
                  .initrd_path = file("initrd", initrd),
                  .command_line = "rate=100"};
  auto entry = load_kernel(*memory, spec, kRsdp);
  ASSERT_TRUE(entry) << entry.error().text();
  ASSERT_EQ(entry->mode, Entry::Mode::kProtected32);

  auto info = *memory->load<HvmStartInfo>(entry->boot_data);
  EXPECT_EQ(info.magic, 0x336EC578u);
  EXPECT_EQ(info.version, 1u);
  EXPECT_EQ(info.rsdp, kRsdp.value);
  std::string command_line(9, 'x');
  ASSERT_TRUE(
      memory->read(Gpa{info.command_line}, std::as_writable_bytes(std::span(command_line))));
  EXPECT_EQ(command_line, std::string("rate=100\0", 9));
  ASSERT_EQ(info.module_count, 1u);
  auto module = *memory->load<HvmModule>(Gpa{info.modules});
  EXPECT_EQ(module.size, initrd.size());
  Bytes loaded(initrd.size());
  ASSERT_TRUE(memory->read(Gpa{module.start}, loaded));
  EXPECT_TRUE(loaded == initrd);
  auto map = memory_map(*memory);
  ASSERT_EQ(info.memory_map_count, map.size());
  for (size_t i = 0; i < map.size(); ++i) {
    auto range = *memory->load<HvmMemoryRange>(Gpa{info.memory_map + i * sizeof(HvmMemoryRange)});
    EXPECT_EQ(range.start, map[i].start.value);
    EXPECT_EQ(range.size, map[i].size);
    EXPECT_EQ(range.type, static_cast<uint32_t>(map[i].type));
  }
}

TEST_F(BootDataTest, CommandLineLengthIsTheKernelsLimit) {
  Bytes elf = test::make_elf(test::small_vmlinux(1'000));
  auto load = [&](uint32_t limit, size_t length) {
    Bytes image = test::make_bzimage(test::Packing::kGzip, elf,
                                     [&](setup_header& header) { header.cmdline_size = limit; });
    KernelSpec spec{
        .kernel_path = "k", .initrd_path = {}, .command_line = std::string(length, 'a')};
    auto entry = load_kernel_image(*guest(64 * layout::kMiB), image, spec, kRsdp);
    return entry ? "no error" : entry.error().text();
  };
  EXPECT_EQ(load(2047, 2047), "no error");
  EXPECT_EQ(load(2047, 2048),
            "the kernel command line has 2048 bytes, this kernel takes 2047: shorten it");
  EXPECT_EQ(load(~0u, layout::kCommandLineMax - 1), "no error");
  EXPECT_THAT(load(~0u, layout::kCommandLineMax), HasSubstr("takes 65535"));
}

TEST_F(BootDataTest, InitrdFillsTheRoomBehindTheKernelExactly) {
  auto memory = guest(64 * layout::kMiB);
  constexpr uint64_t kKernelEnd = 20 * layout::kMiB + 1;
  uint64_t room = 44 * layout::kMiB - kPageSize;
  BootData data;
  ASSERT_TRUE(load_initrd(*memory, sparse_file("fits", room), kKernelEnd, ~0ull, data));
  EXPECT_EQ(data.initrd, Gpa{20 * layout::kMiB + kPageSize});
  EXPECT_EQ(data.initrd_size, room);
  auto refused = load_initrd(*memory, sparse_file("large", room + 1), kKernelEnd, ~0ull, data);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().text(), HasSubstr("does not fit: it has 44 MiB, the kernel ends at "
                                                "21 MiB, the guest has 64 MiB"));
  EXPECT_THAT(refused.error().text(), HasSubstr("give at least --memory 65M"));
}

TEST_F(BootDataTest, InitrdStaysBelowTheKernelsLimit) {
  auto memory = guest(6 * layout::kGiB);
  BootData data;
  std::string path = sparse_file("initrd", 5 * layout::kMiB);
  ASSERT_TRUE(load_initrd(*memory, path, 16 * layout::kMiB, 0x37FF'FFFFull + 1, data));
  EXPECT_EQ(data.initrd, Gpa{0x3800'0000 - 5 * layout::kMiB});
  ASSERT_TRUE(load_initrd(*memory, path, 16 * layout::kMiB, 1ull << 32, data));
  EXPECT_EQ(data.initrd, Gpa{layout::kLowRamEnd.value - 5 * layout::kMiB});
  for (uint64_t limit : {0ull, 16ull << 20, (21ull << 20) - 1}) {
    auto refused = load_initrd(*memory, path, 16 * layout::kMiB, limit, data);
    ASSERT_FALSE(refused);
    EXPECT_THAT(refused.error().text(), HasSubstr("make it smaller"));
  }
  auto huge =
      load_initrd(*memory, sparse_file("huge", 5 * layout::kGiB), 16 * layout::kMiB, ~0ull, data);
  ASSERT_FALSE(huge);
  EXPECT_THAT(huge.error().text(), HasSubstr("it has 5120 MiB"));
}

TEST_F(BootDataTest, BadFilesAreNamed) {
  auto memory = guest(64 * layout::kMiB);
  auto error_of = [&](const KernelSpec& spec) {
    auto entry = load_kernel(*memory, spec, kRsdp);
    return entry ? "no error" : entry.error().text();
  };
  std::string kernel = file("kernel", test::make_elf(test::small_vmlinux(1'000)));
  std::string missing = folder_ / "missing";
  std::string fifo = folder_ / "fifo";
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  EXPECT_EQ(error_of({.kernel_path = kernel, .initrd_path = {}, .command_line = {}}), "no error");
  EXPECT_THAT(error_of({.kernel_path = missing, .initrd_path = {}, .command_line = {}}),
              HasSubstr("kernel: open " + missing + ": No such file"));
  EXPECT_THAT(error_of({.kernel_path = folder_, .initrd_path = {}, .command_line = {}}),
              HasSubstr("not a regular file"));
  EXPECT_THAT(error_of({.kernel_path = file("empty", {}), .initrd_path = {}, .command_line = {}}),
              HasSubstr("is empty"));
  EXPECT_THAT(error_of({.kernel_path = kernel, .initrd_path = missing, .command_line = {}}),
              HasSubstr("initrd: open " + missing + ": No such file"));
  EXPECT_THAT(error_of({.kernel_path = kernel, .initrd_path = folder_, .command_line = {}}),
              HasSubstr("not a regular file"));
  EXPECT_THAT(error_of({.kernel_path = kernel, .initrd_path = fifo, .command_line = {}}),
              HasSubstr("not a regular file"));
  EXPECT_THAT(error_of({.kernel_path = kernel, .initrd_path = file("e", {}), .command_line = {}}),
              HasSubstr("is empty"));
}

TEST(Kernel, SaysWhatWasGivenInstead) {
  auto error_of = [](size_t offset, std::string_view magic) {
    Bytes image(4096);
    std::memcpy(image.data() + offset, magic.data(), magic.size());
    auto entry = load_kernel_image(*guest(64 * layout::kMiB), image, {}, kRsdp);
    return entry ? "no error" : entry.error().text();
  };
  EXPECT_THAT(error_of(0x38, "ARM\x64"), HasSubstr("arm64 kernel: give an x86-64 kernel"));
  EXPECT_THAT(error_of(0x38, "RSC\x05"), HasSubstr("riscv kernel"));
  EXPECT_THAT(error_of(0, std::string_view("MZ\0\0zimg", 8)), HasSubstr("EFI zboot"));
  EXPECT_THAT(error_of(0, "070701"), HasSubstr("--initrd"));
  EXPECT_THAT(error_of(0, "\x1f\x8b\x08"), HasSubstr("compressed file"));
  EXPECT_THAT(error_of(0, "#!/bin/sh"), HasSubstr("not a kernel"));
}

}  // namespace
}  // namespace vmm::boot
