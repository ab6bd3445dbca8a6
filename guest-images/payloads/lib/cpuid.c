#include "cpuid.h"

#include "bytes.h"

const struct CpuidLeaf *CpuidNoted(uint32_t leaf) {
  for (const struct CpuidLeaf *noted = boot_cpuid; noted < boot_cpuid_end; noted++)
    if (noted->leaf == leaf) return noted;
  __builtin_trap();
}

bool CpuidHasHypervisor(void) { return CpuidNoted(1)->ecx >> 31; }

static void JoinName(char name[13], uint32_t first, uint32_t second, uint32_t third) {
  memcpy(name, &first, 4);
  memcpy(name + 4, &second, 4);
  memcpy(name + 8, &third, 4);
  name[12] = '\0';
}

void CpuidVendor(char vendor[13]) {
  const struct CpuidLeaf *leaf = CpuidNoted(0);
  JoinName(vendor, leaf->ebx, leaf->edx, leaf->ecx);
}

void CpuidHypervisor(char name[13]) {
  const struct CpuidLeaf *leaf = CpuidNoted(0x40000000);
  name[0] = '\0';
  if (CpuidHasHypervisor()) JoinName(name, leaf->ebx, leaf->ecx, leaf->edx);
}
