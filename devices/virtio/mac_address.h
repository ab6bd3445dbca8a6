// Ethernet hardware addresses, as users write them and as a guest sees them.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "vmm/base/result.h"

namespace virtio {

using MacAddress = std::array<uint8_t, 6>;

// "52:54:00:12:34:56": six hexadecimal bytes of a unicast address.
base::Result<MacAddress> parse_mac(std::string_view text);
std::string format_mac(const MacAddress& mac);

// A locally administered unicast address that depends on `seed` alone, so that a machine of the
// same name gets the same address each time and its guest does not rename its interface.
MacAddress derive_mac(std::string_view seed);

}  // namespace virtio
