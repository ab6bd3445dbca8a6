// Frequency of the time stamp counter and conversions. The frequency comes from the option
// tsc_khz=, else CPUID 0x40000010 or 0x15, else kvmclock.
#pragma once

#include <stdbool.h>
#include <stdint.h>

// 0 when nothing tells the frequency.
uint64_t TscKhzIfKnown(void);

// Ends the payload with kExitUsage when nothing tells the frequency.
uint64_t TscKhz(void);

uint64_t TicksToNs(uint64_t ticks, uint64_t khz);
uint64_t NsToTicks(uint64_t ns, uint64_t khz);

// Also right when the TSC was set back to an earlier time, as a restore may do.
static inline bool TscReached(uint64_t now, uint64_t when) { return (int64_t)(now - when) >= 0; }
