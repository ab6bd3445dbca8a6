// One PCI function on bus 0, as the root sees it: its configuration space.
#pragma once

#include <cstdint>
#include <span>

namespace pci {

class Function {
 public:
  virtual ~Function() = default;
  // An access of 1, 2 or 4 bytes inside the first 256 bytes. Called from vCPU threads.
  virtual void config_read(uint32_t offset, std::span<uint8_t> data) = 0;
  virtual void config_write(uint32_t offset, std::span<const uint8_t> data) = 0;
};

}  // namespace pci
