#include "devices/exit_port.h"

#include <algorithm>

namespace devices {

void ExitPort::read(uint64_t, std::span<uint8_t> data) { std::ranges::fill(data, uint8_t{0}); }

void ExitPort::write(uint64_t, std::span<const uint8_t> data) { on_exit_(data[0] & 0x7F); }

}  // namespace devices
