// A 64-bit bijection that spreads every input bit (the finaliser of SplitMix64).
#pragma once

#include <stdint.h>

static inline uint64_t Mix(uint64_t value) {
  value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9ull;
  value = (value ^ value >> 27) * 0x94d049bb133111ebull;
  return value ^ value >> 31;
}
