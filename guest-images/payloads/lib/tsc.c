#include "tsc.h"

#include "boot.h"
#include "cpuid.h"
#include "exit.h"
#include "options.h"
#include "print.h"

static uint64_t KhzFromCpuid(void) {
  // The hypervisors' timing leaf; KVM's own signature leaf says how far its leaves go.
  const struct CpuidLeaf *hypervisor = CpuidNoted(0x40000000);
  const struct CpuidLeaf *timing = CpuidNoted(0x40000010);
  if (CpuidHasHypervisor() && hypervisor->eax >= 0x40000010 && timing->eax != 0) return timing->eax;
  const struct CpuidLeaf *crystal = CpuidNoted(0x15);
  if (CpuidNoted(0)->eax >= 0x15 && crystal->eax != 0 && crystal->ebx != 0)
    return (uint64_t)crystal->ecx * crystal->ebx / crystal->eax / 1000;
  return 0;
}

// ns = ((ticks << shift) * mul) >> 32, a negative shift goes right.
static uint64_t KhzFromPvClock(void) {
  uint32_t mul = boot_pvclock.tsc_to_system_mul;
  if (mul == 0) return 0;
  uint64_t khz = (1000000ull << 32) / mul;
  int shift = boot_pvclock.tsc_shift;
  return shift < 0 ? khz << -shift : khz >> shift;
}

uint64_t TscKhzIfKnown(void) {
  uint64_t khz = OptionUpTo("tsc_khz", 0, 100000000);
  if (khz == 0) khz = KhzFromCpuid();
  return khz != 0 ? khz : KhzFromPvClock();
}

uint64_t TscKhz(void) {
  uint64_t khz = TscKhzIfKnown();
  if (khz == 0)
    FAIL_USAGE("tsc: neither CPUID nor kvmclock tells the TSC frequency: give tsc_khz=\n");
  return khz;
}

// 128-bit products without libgcc's division: mul and div of the CPU, the quotient fits
// because what payloads convert is far below 2^64 ns (584 years).
static uint64_t MultiplyDivide(uint64_t value, uint64_t factor, uint64_t divisor) {
  uint64_t low, high, quotient, remainder;
  __asm__("mulq %3" : "=a"(low), "=d"(high) : "a"(value), "rm"(factor) : "cc");
  if (high >= divisor) return UINT64_MAX;
  __asm__("divq %4" : "=a"(quotient), "=d"(remainder) : "a"(low), "d"(high), "rm"(divisor) : "cc");
  return quotient;
}

uint64_t TicksToNs(uint64_t ticks, uint64_t khz) { return MultiplyDivide(ticks, 1000000, khz); }

uint64_t NsToTicks(uint64_t ns, uint64_t khz) { return MultiplyDivide(ns, khz, 1000000); }
