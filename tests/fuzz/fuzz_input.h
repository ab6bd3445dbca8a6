// The bytes of one fuzzer run, taken from the front, so that seeds can be written by hand. Past the
// end every number is 0 and every run of bytes is short.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>

namespace fuzz {

class Input {
 public:
  Input(const uint8_t* data, size_t size) : rest_(data, size) {}

  bool empty() const { return rest_.empty(); }
  uint8_t u8() { return number<uint8_t>(); }
  uint16_t u16() { return number<uint16_t>(); }
  uint32_t u32() { return number<uint32_t>(); }
  uint64_t u64() { return number<uint64_t>(); }

  std::span<const uint8_t> bytes(size_t count) {
    auto taken = rest_.first(std::min(count, rest_.size()));
    rest_ = rest_.subspan(taken.size());
    return taken;
  }
  std::span<const uint8_t> rest() { return bytes(rest_.size()); }

 private:
  template <typename T>
  T number() {
    T value = 0;
    auto taken = bytes(sizeof value);
    std::copy(taken.begin(), taken.end(), reinterpret_cast<uint8_t*>(&value));
    return value;
  }

  std::span<const uint8_t> rest_;
};

}  // namespace fuzz

// An invariant that must hold whatever the guest does. Unlike assert() it is never compiled out.
#define FUZZ_CHECK(condition)           \
  do {                                  \
    if (!(condition)) __builtin_trap(); \
  } while (false)
