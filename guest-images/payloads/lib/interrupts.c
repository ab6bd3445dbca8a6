#include "interrupts.h"

#include "boot.h"
#include "idt.h"
#include "memory.h"

enum {
  kFirstVector = 0x40,
  kSpuriousVector = 0xff,
  kStubBytes = 16,
};

// xAPIC registers (Intel SDM volume 3, 11.4.1).
#define kLocalApic 0xfee00000ull
enum { kApicId = 0x20, kApicTaskPriority = 0x80, kApicSpurious = 0xf0, kApicEnable = 1 << 8 };

extern char interrupt_stubs[], interrupt_spurious[];
extern volatile uint32_t interrupt_counts[kInterruptVectors];

const uint64_t boot_rflags = kRflagsIopl3 | kRflagsInterrupts;

static volatile uint32_t *ApicRegister(unsigned offset) {
  return MemoryPointer(kLocalApic + offset);
}

void InterruptsInit(void) {
  for (unsigned i = 0; i < kInterruptVectors; i++)
    IdtSetGate(kFirstVector + i, interrupt_stubs + i * kStubBytes);
  IdtSetGate(kSpuriousVector, interrupt_spurious);
  *ApicRegister(kApicTaskPriority) = 0;
  *ApicRegister(kApicSpurious) = kApicEnable | kSpuriousVector;
}

uint64_t InterruptMessageAddress(void) {
  return kLocalApic | (uint64_t)(*ApicRegister(kApicId) >> 24) << 12;
}

uint32_t InterruptMessageData(unsigned index) { return kFirstVector + index; }

uint32_t InterruptCount(unsigned index) { return interrupt_counts[index]; }
