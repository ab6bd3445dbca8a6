// Register accesses as a vCPU makes them, for device tests.
#pragma once

#include <array>
#include <cstdint>

#include "vmm/base/endian.h"
#include "vmm/bus.h"

namespace test {

template <typename T>
T read_register(vmm::BusDevice& device, uint64_t offset) {
  std::array<uint8_t, sizeof(T)> data{};
  device.read(offset, data);
  return base::load_le<T>(data);
}

template <typename T>
void write_register(vmm::BusDevice& device, uint64_t offset, T value) {
  std::array<uint8_t, sizeof(T)> data{};
  base::store_le<T>(data, 0, value);
  device.write(offset, data);
}

}  // namespace test
