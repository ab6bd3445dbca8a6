// Frequency of the time stamp counter and conversions. The frequency comes from the option
// tsc_khz=, else CPUID 0x40000010 or 0x15, else kvmclock.
#pragma once

#include <stdint.h>

// Ends the payload with kExitUsage when nothing tells the frequency.
uint64_t TscKhz(void);

uint64_t TicksToNs(uint64_t ticks, uint64_t khz);
uint64_t NsToTicks(uint64_t ns, uint64_t khz);
