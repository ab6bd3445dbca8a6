#include "dirty_pattern.h"

#include <stdbool.h>

#include "mix.h"

#define kStride 0x9e3779b97f4a7c15ull

enum { kHeaderWords = sizeof(struct PatternHeader) / 8 };

// Spreads the changes evenly: over any 100 rounds every page changes exactly
// 100 - unchanged_percent times, and in any round that share of the pages does.
uint64_t PatternGeneration(const struct Pattern *pattern, uint64_t page, uint64_t round) {
  uint64_t phase = Mix(pattern->seed + page) % 100;
  return (round + phase) * (100 - pattern->unchanged_percent) / 100;
}

static uint64_t Base(const struct Pattern *pattern, uint64_t page, uint64_t generation) {
  return Mix(Mix(pattern->seed + page * kStride) + generation);
}

static bool IsZero(const struct Pattern *pattern, uint64_t base) {
  return Mix(base) % 100 < pattern->zero_percent;
}

static struct PatternHeader Header(const struct Pattern *pattern, uint64_t page,
                                   uint64_t generation) {
  return (struct PatternHeader){kPatternMagic, page, generation, pattern->seed};
}

void PatternWrite(const struct Pattern *pattern, uint64_t page, uint64_t generation,
                  uint64_t *words) {
  uint64_t base = Base(pattern, page, generation);
  if (IsZero(pattern, base)) {
    for (unsigned i = 0; i < kPatternWords; i++) words[i] = 0;
    return;
  }
  *(struct PatternHeader *)words = Header(pattern, page, generation);
  for (unsigned i = kHeaderWords; i < kPatternWords; i++) words[i] = base + i * kStride;
}

// The first word that differs; kPatternWords when none does.
static uint64_t FirstDifference(const struct Pattern *pattern, uint64_t page, uint64_t generation,
                                const uint64_t *words, uint64_t *expected) {
  uint64_t base = Base(pattern, page, generation);
  uint64_t i = 0;
  *expected = 0;
  if (IsZero(pattern, base)) {
    while (i < kPatternWords && words[i] == 0) i++;
    return i;
  }
  struct PatternHeader header = Header(pattern, page, generation);
  for (; i < kHeaderWords; i++) {
    *expected = ((const uint64_t *)&header)[i];
    if (words[i] != *expected) return i;
  }
  while (i < kPatternWords && words[i] == base + i * kStride) i++;
  *expected = base + i * kStride;
  return i;
}

static enum PatternVerdict Diagnose(const struct Pattern *pattern, uint64_t page,
                                    const uint64_t *words) {
  uint64_t any = 0;
  for (unsigned i = 0; i < kPatternWords; i++) any |= words[i];
  if (any == 0) return kPatternLost;
  const struct PatternHeader *found = (const struct PatternHeader *)words;
  uint64_t unused;
  return FirstDifference(pattern, page, found->generation, words, &unused) == kPatternWords
             ? kPatternStale
             : kPatternTorn;
}

struct PatternMismatch PatternCheck(const struct Pattern *pattern, uint64_t page,
                                    uint64_t generation, const uint64_t *words) {
  struct PatternMismatch mismatch = {kPatternGood, 0, 0, 0};
  mismatch.word = FirstDifference(pattern, page, generation, words, &mismatch.expected);
  if (mismatch.word == kPatternWords) return mismatch;
  mismatch.got = words[mismatch.word];
  mismatch.verdict = Diagnose(pattern, page, words);
  return mismatch;
}
