// What the pages of payload `dirty` contain: a function of (seed, page, generation), and the
// generation a function of (page, round), so that any page can be checked at any time
// without a record of it. No state.
#pragma once

#include <stdint.h>

#define kPatternMagic 0x7974726964766d6dull  // "mmvdirty" in memory

enum { kPatternWords = 512 };

struct Pattern {
  uint64_t seed;
  uint64_t zero_percent;       // of the generations of each page are all zero
  uint64_t unchanged_percent;  // of the pages keep their generation from one round to the next
};

// A page that is not zero starts with these four words; word i of the rest is
// Mix(seed, page, generation) + i * an odd constant, so any two generations differ in every
// word of it.
struct PatternHeader {
  uint64_t magic, page, generation, seed;
};

uint64_t PatternGeneration(const struct Pattern *pattern, uint64_t page, uint64_t round);

void PatternWrite(const struct Pattern *pattern, uint64_t page, uint64_t generation,
                  uint64_t *words);

enum PatternVerdict {
  kPatternGood,
  kPatternLost,   // all zero where content was expected
  kPatternStale,  // the complete content of another generation
  kPatternTorn,   // anything else
};

struct PatternMismatch {
  enum PatternVerdict verdict;
  uint64_t word, expected, got;  // the first word that differs
};

struct PatternMismatch PatternCheck(const struct Pattern *pattern, uint64_t page,
                                    uint64_t generation, const uint64_t *words);
