// Message-signalled interrupts for a ring 3 payload. Linking this in starts the payload with
// interrupts enabled (it defines boot_rflags); nothing interrupts until a device is given a
// vector. The handler runs in ring 0 and only counts and acknowledges.
#pragma once

#include <stdint.h>

enum { kInterruptVectors = 16 };

// Enables the local APIC and fills the IDT for the vectors below.
void InterruptsInit(void);

// MSI address and data that raise vector number `index` (below kInterruptVectors) on this CPU.
uint64_t InterruptMessageAddress(void);
uint32_t InterruptMessageData(unsigned index);

// How often it has come.
uint32_t InterruptCount(unsigned index);
