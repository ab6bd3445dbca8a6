#include "devices/pci/config_space.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <cstring>

#include "vmm/base/endian.h"

namespace pci {

namespace {
constexpr uint32_t kStatus = 0x06;
constexpr uint16_t kStatusCapabilities = 1 << 4;
constexpr uint32_t kCapabilityPointer = 0x34;
constexpr uint32_t kInterruptLine = 0x3C;
}  // namespace

ConfigSpace::ConfigSpace(const Identity& identity) {
  base::store_le(bytes_, 0x00, identity.vendor);
  base::store_le(bytes_, 0x02, identity.device);
  base::store_le(bytes_, 0x08, identity.class_code << 8 | identity.revision);
  base::store_le(bytes_, 0x2C, identity.subsystem_vendor);
  base::store_le(bytes_, 0x2E, identity.subsystem);
  base::store_le<uint16_t>(writable_, kCommand,
                           kCommandMemory | kCommandBusMaster | kCommandIntxDisable);
  writable_[kInterruptLine] = 0xFF;
}

void ConfigSpace::set_bar0(uint32_t address, uint32_t size) {
  base::store_le(bytes_, kBar0, address);
  base::store_le(writable_, kBar0, ~(size - 1));
  // As firmware would leave it: assigned and enabled.
  base::store_le<uint16_t>(bytes_, kCommand, kCommandMemory);
}

uint32_t ConfigSpace::bar0() const { return base::load_le<uint32_t>(bytes_, kBar0); }

bool ConfigSpace::memory_enabled() const { return get16(kCommand) & kCommandMemory; }

uint8_t ConfigSpace::add_capability(std::span<const uint8_t> body) {
  assert(body.size() >= 2 && next_free_ + body.size() <= bytes_.size());
  uint32_t offset = next_free_;
  std::ranges::copy(body, bytes_.begin() + offset);
  bytes_[offset + 1] = 0;
  bytes_[last_capability_ == 0 ? kCapabilityPointer : last_capability_ + 1] =
      static_cast<uint8_t>(offset);
  base::store_le<uint16_t>(bytes_, kStatus, kStatusCapabilities);
  last_capability_ = offset;
  next_free_ = (offset + static_cast<uint32_t>(body.size()) + 3) & ~3u;
  return static_cast<uint8_t>(offset);
}

void ConfigSpace::allow_writes(uint32_t offset, std::span<const uint8_t> mask) {
  assert(offset + mask.size() <= writable_.size());
  std::ranges::copy(mask, writable_.begin() + offset);
}

void ConfigSpace::read(uint32_t offset, std::span<uint8_t> data) const {
  for (size_t i = 0; i < data.size(); ++i) {
    data[i] = offset + i < bytes_.size() ? bytes_[offset + i] : uint8_t{0};
  }
}

void ConfigSpace::write(uint32_t offset, std::span<const uint8_t> data) {
  for (size_t i = 0; i < data.size() && offset + i < bytes_.size(); ++i) {
    uint8_t mask = writable_[offset + i];
    uint8_t& byte = bytes_[offset + i];
    byte = static_cast<uint8_t>((byte & ~mask) | (data[i] & mask));
  }
}

base::Result<void> ConfigSpace::restore(base::Decoder& from) {
  auto saved = from.bytes(bytes_.size());
  if (saved.empty()) return base::fail("configuration space is too short");
  for (size_t i = 0; i < bytes_.size(); ++i) {
    auto byte = std::to_integer<uint8_t>(saved[i]);
    if ((byte ^ bytes_[i]) & ~writable_[i]) {
      return base::fail(
          fmt::format("configuration space has {:#x} at {:#x}, where this device always has {:#x}",
                      byte, i, bytes_[i]));
    }
  }
  std::memcpy(bytes_.data(), saved.data(), bytes_.size());
  return {};
}

uint16_t ConfigSpace::get16(uint32_t offset) const {
  return base::load_le<uint16_t>(bytes_, offset);
}

}  // namespace pci
