// Sets of RAM pages, one bit a page: what the dirty log gives and the capture works through.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <span>

#include "vmm/base/zeroed_array.h"

namespace snapshot {

using PageBits = base::ZeroedArray<uint64_t>;

inline PageBits make_page_bits(uint64_t pages) { return PageBits((pages + 63) / 64); }

// Calls visit(index) for each word of `bits` that is not zero, in ascending order, until it returns
// false. Most are zero, and this runs while the guest stands still: eight are looked at at once.
template <typename Visit>
bool for_each_word(std::span<const uint64_t> bits, Visit visit) {
  constexpr size_t kAtOnce = 8;
  size_t i = 0;
  while (i < bits.size()) {
    const size_t end = std::min(i + kAtOnce, bits.size());
    if (end - i == kAtOnce) {
      uint64_t any = 0;
      for (size_t k = 0; k < kAtOnce; ++k) any |= bits[i + k];
      if (any == 0) {
        i = end;
        continue;
      }
    }
    for (; i < end; ++i) {
      if (bits[i] != 0 && !visit(i)) return false;
    }
  }
  return true;
}

inline void add_bits(std::span<uint64_t> to, std::span<const uint64_t> from) {
  for_each_word(from, [&](size_t i) {
    to[i] |= from[i];
    return true;
  });
}

inline uint64_t count_bits(std::span<const uint64_t> bits) {
  uint64_t count = 0;
  for_each_word(bits, [&](size_t i) {
    count += static_cast<uint64_t>(std::popcount(bits[i]));
    return true;
  });
  return count;
}

// Calls visit(page) for each page of `bits`, in ascending order; bit 0 is `first`. Stops where it
// returns false, and returns false then.
template <typename Visit>
bool for_each_page(std::span<const uint64_t> bits, uint64_t first, Visit visit) {
  return for_each_word(bits, [&](size_t i) {
    for (uint64_t word = bits[i]; word != 0; word &= word - 1) {
      if (!visit(first + i * 64 + static_cast<uint64_t>(std::countr_zero(word)))) return false;
    }
    return true;
  });
}

}  // namespace snapshot
