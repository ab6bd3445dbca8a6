// Single instructions that C has no word for: port I/O, TSC, ordering.
#pragma once

#include <stdint.h>

static inline void Out8(uint16_t port, uint8_t value) {
  __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline void Out16(uint16_t port, uint16_t value) {
  __asm__ volatile("outw %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline uint8_t In8(uint16_t port) {
  uint8_t value;
  __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port) : "memory");
  return value;
}

// Not serialised: a few cycles of reordering do not matter to any payload.
static inline uint64_t ReadTsc(void) {
  uint32_t low, high;
  __asm__ volatile("rdtsc" : "=a"(low), "=d"(high) : : "memory");
  return (uint64_t)high << 32 | low;
}

static inline void CpuRelax(void) { __asm__ volatile("pause" : : : "memory"); }

// Stores before it are issued before stores after it. x86 keeps the order of stores, so
// only the compiler has to be held back.
static inline void StoreBarrier(void) { __asm__ volatile("" : : : "memory"); }
