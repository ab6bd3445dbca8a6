// CPUID as ring 0 saw it at boot. Ring 3 never executes the instruction itself: where ring
// 3 runs natively and CPUID does not trap, it would see the host.
#pragma once

#include <stdbool.h>

#include "boot.h"

// The noted leaf; asking for one that start.S does not note is a bug and traps.
const struct CpuidLeaf *CpuidNoted(uint32_t leaf);

bool CpuidHasHypervisor(void);

// "AuthenticAMD" or the like; 13 bytes with the terminator.
void CpuidVendor(char vendor[13]);

// "KVMKVMKVM" or the like, empty without a hypervisor.
void CpuidHypervisor(char name[13]);
