// Guest-physical addresses (gpa) and page numbers (gfn) as types of their own, so that neither is
// mistaken for a host pointer, a length or each other.
#pragma once

#include <compare>
#include <cstdint>

namespace vmm {

inline constexpr uint64_t kPageSize = 4096;
inline constexpr unsigned kPageShift = 12;

struct Gfn {
  uint64_t value = 0;
  constexpr auto operator<=>(const Gfn&) const = default;
};

struct Gpa {
  uint64_t value = 0;
  constexpr auto operator<=>(const Gpa&) const = default;
  constexpr Gpa operator+(uint64_t bytes) const { return Gpa{value + bytes}; }
  constexpr Gfn gfn() const { return Gfn{value >> kPageShift}; }
};

}  // namespace vmm
