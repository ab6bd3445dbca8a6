#include "order.h"

#include "mix.h"

struct Order OrderMake(uint64_t pages, bool random, uint64_t seed) {
  struct Order order = {.pages = pages, .random = random, .seed = seed, .mask = 1, .half = 1};
  unsigned bits = 1;
  for (; order.mask < pages - 1; bits++) order.mask = order.mask << 1 | 1;
  if (bits > 3) order.half = bits / 2;
  return order;
}

// Each step is a bijection on k bits, so walking on until the value is a page's number is
// one on the pages.
uint64_t OrderPage(const struct Order *order, uint64_t round, uint64_t position) {
  if (!order->random) return position;
  uint64_t key = Mix(order->seed + round);
  uint64_t factor = key | 1;
  uint64_t page = position;
  do {
    page = (page * factor + (key >> 32)) & order->mask;
    page ^= page >> order->half;
    page = (page * 0x9e3779b97f4a7c15ull + key) & order->mask;
    page ^= page >> order->half;
  } while (page >= order->pages);
  return page;
}
