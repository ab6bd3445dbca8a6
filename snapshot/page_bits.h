// Sets of RAM pages, one bit a page: what the dirty log gives and the capture works through.
#pragma once

#include <bit>
#include <cstdint>
#include <span>
#include <vector>

namespace snapshot {

using PageBits = std::vector<uint64_t>;

inline PageBits make_page_bits(uint64_t pages) { return PageBits((pages + 63) / 64); }

inline void add_bits(std::span<uint64_t> to, std::span<const uint64_t> from) {
  for (size_t i = 0; i < from.size(); ++i) to[i] |= from[i];
}

inline uint64_t count_bits(std::span<const uint64_t> bits) {
  uint64_t count = 0;
  for (uint64_t word : bits) count += static_cast<uint64_t>(std::popcount(word));
  return count;
}

// Calls visit(page) for each page of `bits`, in ascending order; bit 0 is `first`. Stops where it
// returns false, and returns false then.
template <typename Visit>
bool for_each_page(std::span<const uint64_t> bits, uint64_t first, Visit visit) {
  for (size_t i = 0; i < bits.size(); ++i) {
    for (uint64_t word = bits[i]; word != 0; word &= word - 1) {
      if (!visit(first + i * 64 + static_cast<uint64_t>(std::countr_zero(word)))) return false;
    }
  }
  return true;
}

}  // namespace snapshot
