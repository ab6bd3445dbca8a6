// What start.S leaves behind for the C runtime: the start_info pointer and the values
// that only ring 0 can read reliably, and the tables that ring 3 goes on filling.
// Written once before RuntimeMain; only the runtime's own files use it.
#pragma once

#include <stdint.h>

struct CpuidLeaf {
  uint32_t leaf, eax, ebx, ecx, edx;
};

// KVM's pvclock_vcpu_time_info (Documentation/virt/kvm/x86/msr.rst).
struct PvClock {
  uint32_t version;
  uint32_t padding;
  uint64_t tsc_timestamp;
  uint64_t system_time_ns;
  uint32_t tsc_to_system_mul;
  int8_t tsc_shift;
  uint8_t flags;
  uint8_t padding2[2];
};
_Static_assert(sizeof(struct PvClock) == 32, "layout is KVM's");

// RFLAGS of ring 3: a weak default (interrupts off) that interrupts.c overrides.
enum { kRflagsIopl3 = 0x3002, kRflagsInterrupts = 0x200 };
extern const uint64_t boot_rflags;

extern uint32_t boot_start_info;
extern uint64_t boot_tsc;
extern struct CpuidLeaf boot_cpuid[], boot_cpuid_end[];
extern struct PvClock boot_pvclock;
extern uint64_t boot_pdpt[512];
extern uint64_t boot_idt[256][2];

extern char image_start[], image_end[];
