// Port I/O and MMIO dispatch: address ranges to devices. One bus for each space, owned by the
// machine. A device sees offsets into its range, never addresses. Reads and writes come from vCPU
// threads, several at once; a device does its own locking.
#pragma once

#include <cstdint>
#include <map>
#include <shared_mutex>
#include <span>
#include <string_view>

#include "vmm/base/result.h"

namespace vmm {

class BusDevice {
 public:
  virtual ~BusDevice() = default;
  // An access of data.size() bytes at `offset`, which lies whole inside the range the device is
  // attached to. Port I/O: 1, 2 or 4 bytes. MMIO: 1 to 8 bytes, odd counts too where the guest's
  // access crosses a page. Registers are little-endian.
  virtual void read(uint64_t offset, std::span<uint8_t> data) = 0;
  virtual void write(uint64_t offset, std::span<const uint8_t> data) = 0;
};

class Bus {
 public:
  // The device must outlive its attachment. Ranges that overlap are refused, by name.
  base::Result<void> attach(uint64_t base, uint64_t size, BusDevice& device, std::string_view name);
  void detach(uint64_t base);

  // False where no device claims the whole access; reads then give all ones, as on a real bus.
  bool read(uint64_t address, std::span<uint8_t> data) const;
  bool write(uint64_t address, std::span<const uint8_t> data) const;

 private:
  struct Range {
    uint64_t size;
    BusDevice* device;
    std::string_view name;
  };
  struct Target {
    BusDevice* device = nullptr;
    uint64_t offset = 0;
  };
  Target find(uint64_t address, uint64_t size) const;

  // Held only for the look-up: a device may attach and detach (a BAR that moves) while it handles
  // an access. Devices live as long as the machine, so a target found stays valid.
  mutable std::shared_mutex mutex_;
  std::map<uint64_t, Range> ranges_;  // by base address
};

}  // namespace vmm
