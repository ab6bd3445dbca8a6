// The port by which a guest ends the machine with a status for the shell (layout.h: kPortExit): one
// byte, 0 to 127. Payload guests use it; a Linux guest may
// (guest-images/tools/exit-machine.c).
#pragma once

#include <functional>

#include "vmm/bus.h"

namespace devices {

class ExitPort : public vmm::BusDevice {
 public:
  // `on_exit` is called on the vCPU's thread.
  explicit ExitPort(std::function<void(int status)> on_exit) : on_exit_(std::move(on_exit)) {}

  void read(uint64_t offset, std::span<uint8_t> data) override;
  void write(uint64_t offset, std::span<const uint8_t> data) override;

 private:
  std::function<void(int status)> on_exit_;
};

}  // namespace devices
