// What is left of the keyboard controller at 0x60 to 0x64: the command that pulses the CPU's reset
// line, a way to reboot that every kernel knows. There is no keyboard and no mouse; the status
// register always says that the buffers are empty. Ports 0x61 to 0x63 lie in the range and read
// zero.
//
// It holds no state: a snapshot has nothing of it to save.
#pragma once

#include <functional>

#include "vmm/bus.h"

namespace devices {

class I8042 : public vmm::BusDevice {
 public:
  static constexpr uint64_t kPorts = 5;

  // `on_reset` is called on the vCPU's thread.
  explicit I8042(std::function<void()> on_reset) : on_reset_(std::move(on_reset)) {}

  void read(uint64_t offset, std::span<uint8_t> data) override;
  void write(uint64_t offset, std::span<const uint8_t> data) override;

 private:
  std::function<void()> on_reset_;
};

}  // namespace devices
