// hello: says what machine it woke up in and ends with status=N.
#include <stdint.h>

#include "boot.h"
#include "cpu.h"
#include "cpuid.h"
#include "memory.h"
#include "options.h"
#include "payload.h"
#include "print.h"
#include "tsc.h"

unsigned PayloadMain(void) {
  uint64_t tsc = ReadTsc();
  uint64_t khz = TscKhzIfKnown();
  char vendor[13], hypervisor[13];
  CpuidVendor(vendor);
  CpuidHypervisor(hypervisor);
  Print("hello: memory_mib=%lu cpu=%s hypervisor=%s tsc_khz=%lu cmdline=\"%s\"\n",
        MemoryRamBytes() >> 20, vendor, hypervisor, khz, OptionsCommandLine());
  // Close together, unless only one of the two sees the TSC with the VM's offset.
  Print("hello: tsc_ring0=%lu tsc_ring3=%lu\n", boot_tsc, tsc);
  return (unsigned)OptionUpTo("status", 0, 255);
}
