// The order in which a working set is visited: one after the other, or a permutation that
// is another one each round. Stateless: position and round give the page.
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct Order {
  uint64_t pages;
  bool random;
  uint64_t seed;
  uint64_t mask;  // smallest 2^k - 1 that covers the pages
  unsigned half;  // k / 2, at least 1
};

struct Order OrderMake(uint64_t pages, bool random, uint64_t seed);

// position < pages; every page comes up exactly once a round.
uint64_t OrderPage(const struct Order *order, uint64_t round, uint64_t position);
