// Where the guest's kernel says that it panicked, as QEMU's pvpanic ISA device does: one port. A
// read gives the events that can be told (bit 0: panicked, bit 1: a crash kernel was loaded and
// takes care of it), a write tells some. Found through ACPI, device QEMU0001.
//
// It holds no state: a snapshot has nothing of it to save.
#pragma once

#include <functional>

#include "vmm/bus.h"

namespace devices {

class Pvpanic : public vmm::BusDevice {
 public:
  static constexpr uint64_t kPorts = 1;

  // `on_panic` is called on the vCPU's thread, for bit 0 only: after bit 1 the guest goes on.
  explicit Pvpanic(std::function<void()> on_panic) : on_panic_(std::move(on_panic)) {}

  void read(uint64_t offset, std::span<uint8_t> data) override;
  void write(uint64_t offset, std::span<const uint8_t> data) override;

 private:
  std::function<void()> on_panic_;
};

}  // namespace devices
