// Little-endian values in byte buffers, unaligned. PCI, virtio, ACPI and the boot protocol are all
// little-endian, and so is the only host supported.
#pragma once

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace base {

static_assert(std::endian::native == std::endian::little);

// Asserting bounds is the caller's task: `offset + sizeof(T)` must lie inside `bytes`.
template <std::integral T>
T load_le(std::span<const uint8_t> bytes, size_t offset = 0) {
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof value);
  return value;
}

template <std::integral T>
void store_le(std::span<uint8_t> bytes, size_t offset, T value) {
  std::memcpy(bytes.data() + offset, &value, sizeof value);
}

// The value of a register access of 1, 2, 4 or 8 bytes; other widths give the bytes there are.
inline uint64_t load_register(std::span<const uint8_t> bytes) {
  uint64_t value = 0;
  std::memcpy(&value, bytes.data(), bytes.size() < 8 ? bytes.size() : 8);
  return value;
}

inline void store_register(std::span<uint8_t> bytes, uint64_t value) {
  std::memset(bytes.data(), 0, bytes.size());
  std::memcpy(bytes.data(), &value, bytes.size() < 8 ? bytes.size() : 8);
}

}  // namespace base
