// Little-endian values in and out of byte strings: how everything that is saved is written. An
// encoder appends; a decoder reads what may be damaged or hostile: it never reads past the end, and
// once something was wrong every further value is 0 and finish() says so.
//
// Owned by whoever encodes or decodes; one thread.
#pragma once

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "vmm/base/result.h"

namespace base {

static_assert(std::endian::native == std::endian::little);

class Encoder {
 public:
  // Appends to `out`, which outlives the encoder. A vector with room to spare is not reallocated.
  explicit Encoder(std::vector<std::byte>& out) : out_(&out) {}

  void u8(uint8_t value) { number(value); }
  void u16(uint16_t value) { number(value); }
  void u32(uint32_t value) { number(value); }
  void u64(uint64_t value) { number(value); }
  void boolean(bool value) { u8(value); }
  void bytes(std::span<const std::byte> from) {
    out_->insert(out_->end(), from.begin(), from.end());
  }
  // Length in 32 bits, then the bytes.
  void string(std::string_view from) {
    u32(static_cast<uint32_t>(from.size()));
    bytes(std::as_bytes(std::span(from)));
  }
  // A structure as it lies in memory (kernel ABI structures only: their layout never changes).
  template <typename T>
    requires std::is_trivially_copyable_v<T>
  void structure(const T& value) {
    bytes(std::as_bytes(std::span(&value, 1)));
  }
  size_t size() const { return out_->size(); }

 private:
  template <std::integral T>
  void number(T value) {
    structure(value);
  }
  std::vector<std::byte>* out_;
};

class Decoder {
 public:
  explicit Decoder(std::span<const std::byte> from) : rest_(from) {}

  uint8_t u8() { return number<uint8_t>(); }
  uint16_t u16() { return number<uint16_t>(); }
  uint32_t u32() { return number<uint32_t>(); }
  uint64_t u64() { return number<uint64_t>(); }
  // 0 or 1; anything else is wrong.
  bool boolean();
  // A view of the next `count` bytes, empty where there are fewer.
  std::span<const std::byte> bytes(uint64_t count);
  std::string string(uint32_t longest);
  template <typename T>
    requires std::is_trivially_copyable_v<T>
  T structure() {
    T value{};
    if (auto from = bytes(sizeof value); !from.empty())
      std::memcpy(&value, from.data(), sizeof value);
    return value;
  }

  // For the caller's own checks: what was read makes no sense.
  void refuse() { ok_ = false; }
  bool ok() const { return ok_; }
  std::span<const std::byte> rest() const { return rest_; }
  // Everything was there, made sense, and nothing is left. `what` begins the error's text.
  Result<void> finish(std::string_view what) const;

 private:
  template <std::integral T>
  T number() {
    return structure<T>();
  }
  std::span<const std::byte> rest_;
  bool ok_ = true;
};

}  // namespace base
