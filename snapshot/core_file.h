// The ELF core file of a guest: its RAM as PT_LOAD segments by physical address, and for each vCPU
// two notes: NT_PRSTATUS, which debuggers read, and "QEMU" as QEMU's dump-guest-memory writes it,
// in which crash finds CR3 and the interrupt table to locate the kernel. The format: System V gABI
// chapters 4 and 5; <elf.h>, <sys/procfs.h>.
//
// Only the head of the file is made here; whoever writes it copies the RAM to the offsets named.
#pragma once

#include <linux/kvm.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "vmm/guest_address.h"

namespace snapshot {

struct CoreCpu {
  kvm_regs regs{};
  kvm_sregs2 sregs{};
  uint64_t kernel_gs_base = 0;  // MSR 0xC000'0102
};

struct CoreRegion {
  vmm::Gpa start;
  uint64_t bytes = 0;
};

struct CoreLayout {
  std::vector<std::byte> head;        // the file from its start to the end of the notes
  std::vector<uint64_t> ram_offsets;  // where each region's bytes go; multiples of 4096
  uint64_t file_bytes = 0;
};

CoreLayout lay_out_core(std::span<const CoreRegion> regions, std::span<const CoreCpu> cpus);

// The note of one vCPU named "QEMU" (QEMU's target/i386/arch_dump.c, version 1).
struct QemuSegment {
  uint32_t selector = 0, limit = 0, flags = 0, reserved = 0;
  uint64_t base = 0;
};
struct QemuCpuNote {
  uint32_t version = 1;
  uint32_t bytes = sizeof(QemuCpuNote);
  uint64_t rax = 0, rbx = 0, rcx = 0, rdx = 0, rsi = 0, rdi = 0, rsp = 0, rbp = 0;
  uint64_t r8 = 0, r9 = 0, r10 = 0, r11 = 0, r12 = 0, r13 = 0, r14 = 0, r15 = 0;
  uint64_t rip = 0, rflags = 0;
  QemuSegment cs, ds, es, fs, gs, ss, ldt, tr, gdt, idt;
  uint64_t cr[5] = {};
  uint64_t kernel_gs_base = 0;
};
static_assert(sizeof(QemuSegment) == 24);
static_assert(sizeof(QemuCpuNote) == 440);

}  // namespace snapshot
