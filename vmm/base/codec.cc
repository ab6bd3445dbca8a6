#include "vmm/base/codec.h"

namespace base {

bool Decoder::boolean() {
  uint8_t value = u8();
  if (value > 1) ok_ = false;
  return value == 1;
}

std::span<const std::byte> Decoder::bytes(uint64_t count) {
  if (!ok_ || count > rest_.size()) {
    ok_ = false;
    return {};
  }
  auto taken = rest_.first(count);
  rest_ = rest_.subspan(count);
  return taken;
}

std::string Decoder::string(uint32_t longest) {
  uint32_t length = u32();
  if (length > longest) ok_ = false;
  auto from = bytes(length);
  return {reinterpret_cast<const char*>(from.data()), from.size()};
}

Result<void> Decoder::finish(std::string_view what) const {
  if (!ok_) return fail(std::string(what) + " is too short or contains impossible values");
  if (!rest_.empty()) {
    return fail(std::string(what) + " has " + std::to_string(rest_.size()) + " bytes too many");
  }
  return {};
}

}  // namespace base
