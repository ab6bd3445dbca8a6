// The 256 bytes of PCI configuration space (PCI 3.0, chapter 6): identity, one memory BAR, a list
// of capabilities, and for each bit whether the guest may write it.
//
// Not locked: the function that owns it is.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "vmm/base/codec.h"
#include "vmm/base/result.h"

namespace pci {

// Register offsets of a type 0 header.
inline constexpr uint32_t kCommand = 0x04;
inline constexpr uint32_t kBar0 = 0x10;
inline constexpr uint16_t kCommandMemory = 1 << 1;
inline constexpr uint16_t kCommandBusMaster = 1 << 2;
inline constexpr uint16_t kCommandIntxDisable = 1 << 10;

class ConfigSpace {
 public:
  struct Identity {
    uint16_t vendor, device;
    uint8_t revision;
    uint32_t class_code;  // base class, sub-class, interface: 0xBBSSII
    uint16_t subsystem_vendor, subsystem;
  };
  explicit ConfigSpace(const Identity& identity);

  // BAR 0: 32-bit memory, not prefetchable. `size` is a power of two of at least 16.
  void set_bar0(uint32_t address, uint32_t size);
  uint32_t bar0() const;
  bool memory_enabled() const;

  // Appends a capability; `body` starts at its ID byte, whose "next" byte is filled in here.
  // Returns its offset. All of it is read-only until allow_writes().
  uint8_t add_capability(std::span<const uint8_t> body);
  void allow_writes(uint32_t offset, std::span<const uint8_t> mask);

  void read(uint32_t offset, std::span<uint8_t> data) const;
  void write(uint32_t offset, std::span<const uint8_t> data);

  uint16_t get16(uint32_t offset) const;

  // All 256 bytes. A restore takes those of the same function only: what the guest cannot write
  // must be what it is here.
  void save(base::Encoder& to) const { to.bytes(std::as_bytes(std::span(bytes_))); }
  base::Result<void> restore(base::Decoder& from);

 private:
  std::array<uint8_t, 256> bytes_{};
  std::array<uint8_t, 256> writable_{};
  uint32_t last_capability_ = 0;
  uint32_t next_free_ = 0x40;
};

}  // namespace pci
