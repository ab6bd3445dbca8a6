#include "snapshot/core_file.h"

#include <elf.h>
#include <sys/procfs.h>

#include <cstring>

#include "vmm/base/codec.h"

namespace snapshot {
namespace {

// What gdb and crash expect of NT_PRSTATUS on x86-64: the thread at 32, registers at 112.
static_assert(sizeof(elf_prstatus) == 336);
static_assert(offsetof(elf_prstatus, pr_pid) == 32);
static_assert(offsetof(elf_prstatus, pr_reg) == 112);

constexpr uint64_t kAlignment = 4096;
constexpr std::string_view kCoreName{"CORE\0", 5}, kQemuName{"QEMU\0", 5};

uint64_t align_up(uint64_t value, uint64_t to) { return (value + to - 1) / to * to; }

elf_prstatus prstatus_of(const CoreCpu& cpu, size_t index) {
  const kvm_regs& from = cpu.regs;
  const kvm_sregs2& special = cpu.sregs;
  user_regs_struct to{};
  to.r15 = from.r15;
  to.r14 = from.r14;
  to.r13 = from.r13;
  to.r12 = from.r12;
  to.rbp = from.rbp;
  to.rbx = from.rbx;
  to.r11 = from.r11;
  to.r10 = from.r10;
  to.r9 = from.r9;
  to.r8 = from.r8;
  to.rax = from.rax;
  to.rcx = from.rcx;
  to.rdx = from.rdx;
  to.rsi = from.rsi;
  to.rdi = from.rdi;
  to.orig_rax = ~0ull;  // not inside a system call that a debugger would restart
  to.rip = from.rip;
  to.cs = special.cs.selector;
  to.eflags = from.rflags;
  to.rsp = from.rsp;
  to.ss = special.ss.selector;
  to.fs_base = special.fs.base;
  to.gs_base = special.gs.base;
  to.ds = special.ds.selector;
  to.es = special.es.selector;
  to.fs = special.fs.selector;
  to.gs = special.gs.selector;
  elf_prstatus status{};
  static_assert(sizeof to == sizeof status.pr_reg);
  status.pr_pid = static_cast<pid_t>(index + 1);  // debuggers take 0 for no thread
  std::memcpy(&status.pr_reg, &to, sizeof to);
  return status;
}

// `flags` is the high half of the segment's descriptor (AMD64 manual vol. 2, 4.8).
QemuSegment segment_of(const kvm_segment& from) {
  uint32_t flags = (from.type & 15u) << 8 | (from.s & 1u) << 12 | (from.dpl & 3u) << 13 |
                   (from.present & 1u) << 15 | (from.avl & 1u) << 20 | (from.l & 1u) << 21 |
                   (from.db & 1u) << 22 | (from.g & 1u) << 23;
  return {from.selector, from.limit, flags, 0, from.base};
}

QemuSegment table_of(const kvm_dtable& from) { return {0, from.limit, 0, 0, from.base}; }

QemuCpuNote qemu_note_of(const CoreCpu& cpu) {
  const kvm_regs& from = cpu.regs;
  const kvm_sregs2& special = cpu.sregs;
  QemuCpuNote to;
  to.rax = from.rax;
  to.rbx = from.rbx;
  to.rcx = from.rcx;
  to.rdx = from.rdx;
  to.rsi = from.rsi;
  to.rdi = from.rdi;
  to.rsp = from.rsp;
  to.rbp = from.rbp;
  to.r8 = from.r8;
  to.r9 = from.r9;
  to.r10 = from.r10;
  to.r11 = from.r11;
  to.r12 = from.r12;
  to.r13 = from.r13;
  to.r14 = from.r14;
  to.r15 = from.r15;
  to.rip = from.rip;
  to.rflags = from.rflags;
  to.cs = segment_of(special.cs);
  to.ds = segment_of(special.ds);
  to.es = segment_of(special.es);
  to.fs = segment_of(special.fs);
  to.gs = segment_of(special.gs);
  to.ss = segment_of(special.ss);
  to.ldt = segment_of(special.ldt);
  to.tr = segment_of(special.tr);
  to.gdt = table_of(special.gdt);
  to.idt = table_of(special.idt);
  to.cr[0] = special.cr0;
  to.cr[2] = special.cr2;
  to.cr[3] = special.cr3;
  to.cr[4] = special.cr4;
  to.kernel_gs_base = cpu.kernel_gs_base;
  return to;
}

// Name and content are padded to multiples of 4 (gABI chapter 5, "Note Section").
template <typename T>
void add_note(std::vector<std::byte>& out, std::string_view name, uint32_t type, const T& content) {
  base::Encoder encoder(out);
  Elf64_Nhdr header{static_cast<Elf64_Word>(name.size()), sizeof content, type};
  encoder.structure(header);
  encoder.bytes(std::as_bytes(std::span(name)));
  out.resize(align_up(out.size(), 4));
  encoder.structure(content);
  out.resize(align_up(out.size(), 4));
}

}  // namespace

CoreLayout lay_out_core(std::span<const CoreRegion> regions, std::span<const CoreCpu> cpus) {
  std::vector<std::byte> notes;
  for (size_t i = 0; i < cpus.size(); ++i)
    add_note(notes, kCoreName, NT_PRSTATUS, prstatus_of(cpus[i], i));
  for (const CoreCpu& cpu : cpus) add_note(notes, kQemuName, 0, qemu_note_of(cpu));

  Elf64_Ehdr header{};
  std::memcpy(header.e_ident, ELFMAG, SELFMAG);
  header.e_ident[EI_CLASS] = ELFCLASS64;
  header.e_ident[EI_DATA] = ELFDATA2LSB;
  header.e_ident[EI_VERSION] = EV_CURRENT;
  header.e_type = ET_CORE;
  header.e_machine = EM_X86_64;
  header.e_version = EV_CURRENT;
  header.e_phoff = sizeof header;
  header.e_ehsize = sizeof header;
  header.e_phentsize = sizeof(Elf64_Phdr);
  header.e_phnum = static_cast<Elf64_Half>(1 + regions.size());

  CoreLayout layout;
  base::Encoder encoder(layout.head);
  encoder.structure(header);
  Elf64_Phdr note{};
  note.p_type = PT_NOTE;
  note.p_offset = sizeof header + header.e_phnum * sizeof note;
  note.p_filesz = notes.size();
  note.p_memsz = notes.size();
  note.p_align = 4;
  encoder.structure(note);
  layout.file_bytes = align_up(note.p_offset + notes.size(), kAlignment);
  for (const CoreRegion& region : regions) {
    Elf64_Phdr load{};
    load.p_type = PT_LOAD;
    load.p_flags = PF_R | PF_W | PF_X;
    load.p_offset = layout.file_bytes;
    // Without the guest's page tables physical addresses are the only ones there are.
    load.p_vaddr = region.start.value;
    load.p_paddr = region.start.value;
    load.p_filesz = region.bytes;
    load.p_memsz = region.bytes;
    // None asked for, though the content begins at a multiple of 4096: crash takes a core whose
    // first segment is aligned and says so for one of netdump (is_netdump() of its netdump.c), and
    // dies.
    load.p_align = 0;
    encoder.structure(load);
    layout.ram_offsets.push_back(layout.file_bytes);
    layout.file_bytes = align_up(layout.file_bytes + region.bytes, kAlignment);
  }
  encoder.bytes(notes);
  return layout;
}

}  // namespace snapshot
