#include "snapshot/core_file.h"

#include <elf.h>
#include <gtest/gtest.h>
#include <sys/procfs.h>

#include <cstring>
#include <string>

namespace snapshot {
namespace {

struct Note {
  std::string name;
  uint32_t type = 0;
  std::span<const std::byte> content;
};

struct CoreFile : testing::Test {
  template <typename T>
  T at(uint64_t offset) const {
    T value{};
    EXPECT_LE(offset + sizeof value, layout.head.size());
    std::memcpy(&value, layout.head.data() + offset, sizeof value);
    return value;
  }
  Elf64_Phdr segment(size_t index) const {
    auto header = at<Elf64_Ehdr>(0);
    EXPECT_LT(index, header.e_phnum);
    return at<Elf64_Phdr>(header.e_phoff + index * header.e_phentsize);
  }
  std::vector<Note> notes() const {
    Elf64_Phdr where = segment(0);
    EXPECT_EQ(where.p_type, static_cast<uint32_t>(PT_NOTE));
    EXPECT_EQ(where.p_offset + where.p_filesz, layout.head.size());
    std::vector<Note> found;
    for (uint64_t offset = where.p_offset; offset < where.p_offset + where.p_filesz;) {
      auto header = at<Elf64_Nhdr>(offset);
      offset += sizeof header;
      std::string name(reinterpret_cast<const char*>(layout.head.data() + offset));
      EXPECT_EQ(name.size() + 1, header.n_namesz);
      offset += (header.n_namesz + 3) / 4 * 4;
      found.push_back(
          {name, header.n_type, std::span(layout.head).subspan(offset, header.n_descsz)});
      offset += (header.n_descsz + 3) / 4 * 4;
    }
    return found;
  }
  CoreLayout layout;
};

TEST_F(CoreFile, RamIsLoadedByPhysicalAddress) {
  std::vector<CoreRegion> regions{{vmm::Gpa{0}, 0x3000}, {vmm::Gpa{1ull << 32}, 0x2000}};
  layout = lay_out_core(regions, std::vector<CoreCpu>(3));
  auto header = at<Elf64_Ehdr>(0);
  EXPECT_EQ(std::memcmp(header.e_ident, ELFMAG, SELFMAG), 0);
  EXPECT_EQ(header.e_ident[EI_CLASS], ELFCLASS64);
  EXPECT_EQ(header.e_type, ET_CORE);
  EXPECT_EQ(header.e_machine, EM_X86_64);
  ASSERT_EQ(header.e_phnum, 3);
  for (size_t i = 0; i < 2; ++i) {
    Elf64_Phdr load = segment(1 + i);
    EXPECT_EQ(load.p_type, static_cast<uint32_t>(PT_LOAD));
    EXPECT_EQ(load.p_paddr, regions[i].start.value);
    EXPECT_EQ(load.p_filesz, regions[i].bytes);
    EXPECT_EQ(load.p_memsz, regions[i].bytes);
    EXPECT_EQ(load.p_offset, layout.ram_offsets[i]);
    EXPECT_EQ(load.p_offset % 4096, 0u);
    EXPECT_EQ(load.p_align, 0u);
    EXPECT_GE(load.p_offset, layout.head.size());
  }
  EXPECT_EQ(layout.ram_offsets[1], layout.ram_offsets[0] + 0x3000);
  EXPECT_EQ(layout.file_bytes, layout.ram_offsets[1] + 0x2000);
}

TEST_F(CoreFile, EachCpuHasItsTwoNotes) {
  std::vector<CoreCpu> cpus(2);
  for (size_t i = 0; i < cpus.size(); ++i) {
    CoreCpu& cpu = cpus[i];
    cpu.regs.rip = 0xffffffff81000000 + i;
    cpu.regs.rsp = 0x1000 + i;
    cpu.regs.rax = 1;
    cpu.regs.r15 = 15;
    cpu.regs.rflags = 0x246;
    cpu.sregs.cr3 = 0x2a0a000 + i;
    cpu.sregs.cr0 = 0x80050033;
    cpu.sregs.cr4 = 0x6f0;
    cpu.sregs.cs = {.base = 0,
                    .limit = 0xffffffff,
                    .selector = 0x10,
                    .type = 0xb,
                    .present = 1,
                    .dpl = 0,
                    .db = 0,
                    .s = 1,
                    .l = 1,
                    .g = 1,
                    .avl = 0,
                    .unusable = 0,
                    .padding = 0};
    cpu.sregs.gs.base = 0xffff888000000000;
    cpu.sregs.idt = {.base = 0xfffffe0000000000, .limit = 0xfff, .padding = {}};
    cpu.kernel_gs_base = 0x7f0000000000;
  }
  layout = lay_out_core(std::vector<CoreRegion>{{vmm::Gpa{0}, 4096}}, cpus);
  std::vector<Note> found = notes();
  ASSERT_EQ(found.size(), 4u);
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(found[i].name, "CORE");
    EXPECT_EQ(found[i].type, static_cast<uint32_t>(NT_PRSTATUS));
    elf_prstatus status{};
    ASSERT_EQ(found[i].content.size(), sizeof status);
    std::memcpy(&status, found[i].content.data(), sizeof status);
    user_regs_struct regs{};
    std::memcpy(&regs, &status.pr_reg, sizeof regs);
    EXPECT_EQ(status.pr_pid, static_cast<pid_t>(i + 1));
    EXPECT_EQ(regs.rip, 0xffffffff81000000 + i);
    EXPECT_EQ(regs.rsp, 0x1000 + i);
    EXPECT_EQ(regs.rax, 1u);
    EXPECT_EQ(regs.r15, 15u);
    EXPECT_EQ(regs.cs, 0x10u);
    EXPECT_EQ(regs.eflags, 0x246u);
    EXPECT_EQ(regs.gs_base, 0xffff888000000000u);

    EXPECT_EQ(found[2 + i].name, "QEMU");
    EXPECT_EQ(found[2 + i].type, 0u);
    QemuCpuNote note;
    ASSERT_EQ(found[2 + i].content.size(), sizeof note);
    std::memcpy(&note, found[2 + i].content.data(), sizeof note);
    EXPECT_EQ(note.version, 1u);
    EXPECT_EQ(note.bytes, 440u);
    EXPECT_EQ(note.rip, 0xffffffff81000000 + i);
    EXPECT_EQ(note.cr[0], 0x80050033u);
    EXPECT_EQ(note.cr[3], 0x2a0a000 + i);
    EXPECT_EQ(note.cr[4], 0x6f0u);
    EXPECT_EQ(note.idt.base, 0xfffffe0000000000u);
    EXPECT_EQ(note.idt.limit, 0xfffu);
    EXPECT_EQ(note.cs.selector, 0x10u);
    EXPECT_EQ(note.cs.flags, 0x00a09b00u);  // a 64-bit code segment's descriptor, high half
    EXPECT_EQ(note.kernel_gs_base, 0x7f0000000000u);
  }
}

}  // namespace
}  // namespace snapshot
