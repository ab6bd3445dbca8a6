// Interrupt gates (Intel SDM volume 3, 7.14.1) in the IDT that ring 3 fills.
#pragma once

#include <stdint.h>

#include "boot.h"

static inline void IdtSetGate(unsigned vector, const char *entry) {
  const uint64_t ring0_code = 0x08, interrupt_gate_present = 0x8e;
  uint64_t address = (uint64_t)entry;
  boot_idt[vector][1] = address >> 32;
  boot_idt[vector][0] = (address & 0xffff) | ring0_code << 16 | interrupt_gate_present << 40 |
                        (address >> 16 & 0xffff) << 48;
}
