#include "devices/virtio/mac_address.h"

#include <fmt/format.h>

#include <charconv>

namespace virtio {

using base::fail;
using base::Result;

Result<MacAddress> parse_mac(std::string_view text) {
  auto refuse = [&](const char* why) {
    return fail(fmt::format("MAC address '{}' {}: write one as 52:54:00:12:34:56", text, why));
  };
  MacAddress mac;
  if (text.size() != 17) return refuse("is not six bytes");
  for (size_t i = 0; i < mac.size(); ++i) {
    std::string_view byte = text.substr(3 * i, 2);
    auto [end, error] = std::from_chars(byte.begin(), byte.end(), mac[i], 16);
    if (error != std::errc{} || end != byte.end()) return refuse("is not hexadecimal");
    if (i + 1 < mac.size() && text[3 * i + 2] != ':') return refuse("is not separated by colons");
  }
  if (mac[0] & 1) return refuse("is a multicast address");
  if (mac == MacAddress{}) return refuse("is all zeroes");
  return mac;
}

std::string format_mac(const MacAddress& mac) {
  return fmt::format("{:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}", mac[0], mac[1], mac[2], mac[3],
                     mac[4], mac[5]);
}

MacAddress derive_mac(std::string_view seed) {
  uint64_t hash = 0xcbf29ce484222325;  // FNV-1a
  for (char c : seed) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3;
  MacAddress mac{0x52, 0x54, 0x00, 0, 0, 0};
  for (size_t i = 3; i < mac.size(); ++i) mac[i] = static_cast<uint8_t>(hash >> (8 * (i - 3) + 20));
  return mac;
}

}  // namespace virtio
