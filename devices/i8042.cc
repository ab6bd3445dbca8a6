#include "devices/i8042.h"

#include <algorithm>

namespace devices {
namespace {

constexpr uint64_t kCommand = 4;
// Commands 0xF0 to 0xFF pulse the output port's lines whose bits are zero; bit 0 is the reset line.
constexpr uint8_t kPulseReset = 0xFE;

}  // namespace

void I8042::read(uint64_t, std::span<uint8_t> data) { std::ranges::fill(data, uint8_t{0}); }

void I8042::write(uint64_t offset, std::span<const uint8_t> data) {
  if (offset > kCommand || kCommand - offset >= data.size()) return;
  if (data[kCommand - offset] == kPulseReset) on_reset_();
}

}  // namespace devices
