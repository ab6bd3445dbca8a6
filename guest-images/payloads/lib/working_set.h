// The options every payload with a working set shares: size= (default 64M) and start= (a
// guest-physical address; default the lowest free RAM).
#pragma once

#include <stdint.h>

struct WorkingSet {
  uint64_t gpa;
  uint64_t pages;
};

// Allocates it, or ends the payload with kExitUsage and a line that says what there is.
struct WorkingSet WorkingSetFromOptions(void);

static inline uint64_t *WorkingSetPage(const struct WorkingSet *set, uint64_t page) {
  return (uint64_t *)(set->gpa + page * 4096);
}
