// The driver's side of a virtio PCI device (virtio 1.2, 3.1.1 and 4.1), as an operating system does
// it: finds the function through the configuration ports, its structures through the capabilities,
// and reaches them through the MMIO bus. A kick goes to the doorbell, where there is one.
#pragma once

#include <array>
#include <cstdint>
#include <map>

#include "devices/pci/config_space.h"
#include "devices/virtio/common_config.h"
#include "devices/virtio/virtqueue.h"
#include "tests/support/fake_interrupts.h"
#include "vmm/base/endian.h"
#include "vmm/bus.h"

namespace testing_support {

class PciDriver {
 public:
  // Capability types, and offsets of the common structure.
  enum Structure : uint8_t { kCommon = 1, kNotify = 2, kIsr = 3, kDevice = 4, kWindow = 5 };
  enum Register : uint32_t {
    kDeviceFeatureSelect = 0x00,
    kDeviceFeature = 0x04,
    kDriverFeatureSelect = 0x08,
    kDriverFeature = 0x0C,
    kConfigVector = 0x10,
    kStatus = 0x14,
    kGeneration = 0x15,
    kQueueSelect = 0x16,
    kQueueSize = 0x18,
    kQueueVector = 0x1A,
    kQueueEnable = 0x1C,
    kQueueDescriptors = 0x20,
    kQueueAvail = 0x28,
    kQueueUsed = 0x30,
  };

  PciDriver(vmm::Bus& pio, vmm::Bus& mmio, test::FakeInterrupts& interrupts, uint32_t slot = 1)
      : pio_(pio), mmio_(mmio), interrupts_(interrupts), slot_(slot) {}

  template <typename T>
  T config(uint32_t offset) {
    select(offset);
    uint8_t data[sizeof(T)];
    pio_.read(0xCFC + offset % 4, data);
    return base::load_le<T>(data);
  }
  template <typename T>
  void set_config(uint32_t offset, T value) {
    select(offset);
    uint8_t data[sizeof(T)];
    base::store_le(data, 0, value);
    pio_.write(0xCFC + offset % 4, data);
  }

  // Walks the capabilities; the offsets of the structures inside BAR 0 are known from then on.
  void probe() {
    for (uint8_t at = config<uint8_t>(0x34); at != 0; at = config<uint8_t>(at + 1u)) {
      if (config<uint8_t>(at) == 0x11) msix_capability = at;
      if (config<uint8_t>(at) != 0x09) continue;
      uint8_t type = config<uint8_t>(at + 3u);
      capability[type] = at;
      structure[type] = config<uint32_t>(at + 8u);
      if (type == kNotify) notify_multiplier = config<uint32_t>(at + 16u);
    }
  }
  uint64_t bar() { return config<uint32_t>(pci::kBar0) & ~0xFull; }

  template <typename T>
  T read(uint64_t offset) {
    uint8_t data[sizeof(T)];
    mmio_.read(bar() + offset, data);
    return base::load_le<T>(data);
  }
  template <typename T>
  void write(uint64_t offset, T value) {
    uint8_t data[sizeof(T)];
    base::store_le(data, 0, value);
    mmio_.write(bar() + offset, data);
  }
  template <typename T>
  T common(uint32_t offset) {
    return read<T>(structure[kCommon] + offset);
  }
  template <typename T>
  void set_common(uint32_t offset, T value) {
    write<T>(structure[kCommon] + offset, value);
  }
  uint8_t status() { return common<uint8_t>(kStatus); }
  void set_status(uint8_t bits) { set_common<uint8_t>(kStatus, bits); }

  uint64_t offered() {
    set_common<uint32_t>(kDeviceFeatureSelect, 0);
    uint64_t features = common<uint32_t>(kDeviceFeature);
    set_common<uint32_t>(kDeviceFeatureSelect, 1);
    return features | uint64_t{common<uint32_t>(kDeviceFeature)} << 32;
  }
  // Up to FEATURES_OK; false where the device does not take the features.
  bool negotiate(uint64_t features) {
    set_status(virtio::kStatusAcknowledge);
    set_status(virtio::kStatusAcknowledge | virtio::kStatusDriver);
    for (uint32_t half = 0; half < 2; ++half) {
      set_common<uint32_t>(kDriverFeatureSelect, half);
      set_common<uint32_t>(kDriverFeature, static_cast<uint32_t>(features >> (32 * half)));
    }
    set_status(kReady);
    return status() & virtio::kStatusFeaturesOk;
  }
  void set_queue(uint16_t index, const virtio::QueueLayout& layout) {
    set_common<uint16_t>(kQueueSelect, index);
    set_common<uint16_t>(kQueueSize, layout.size);
    set_common<uint16_t>(kQueueVector, static_cast<uint16_t>(index + 1));
    set_common<uint64_t>(kQueueDescriptors, layout.descriptors.value);
    set_common<uint64_t>(kQueueAvail, layout.avail.value);
    set_common<uint64_t>(kQueueUsed, layout.used.value);
    set_common<uint16_t>(kQueueEnable, 1);
  }
  void go() {
    set_common<uint16_t>(kConfigVector, 0);
    set_status(kReady | virtio::kStatusDriverOk);
  }
  // Enables MSI-X with `count` unmasked vectors, each with a message of its own.
  void enable_interrupts(uint32_t count) {
    uint32_t table = config<uint32_t>(msix_capability + 4u) & ~7u;
    set_config<uint16_t>(msix_capability + 2u, 0x8000);
    for (uint32_t i = 0; i < count; ++i) {
      write<uint32_t>(table + 16 * i, 0xFEE00000);
      write<uint32_t>(table + 16 * i + 8, 0x40 + i);
      write<uint32_t>(table + 16 * i + 12, 0);
    }
  }
  uint64_t doorbell(uint16_t queue) {
    return bar() + structure[kNotify] + uint64_t{queue} * notify_multiplier;
  }
  void kick(uint16_t queue) {
    uint8_t data[2];
    base::store_le(data, 0, queue);
    if (!interrupts_.ring(doorbell(queue))) mmio_.write(doorbell(queue), data);
  }

  std::map<uint8_t, uint8_t> capability;  // by type
  std::map<uint8_t, uint32_t> structure;  // by type
  uint32_t notify_multiplier = 0;
  uint8_t msix_capability = 0;
  static constexpr uint8_t kReady =
      virtio::kStatusAcknowledge | virtio::kStatusDriver | virtio::kStatusFeaturesOk;

 private:
  void select(uint32_t offset) {
    uint8_t data[4];
    base::store_le(data, 0, 0x8000'0000u | slot_ << 11 | (offset & 0xFC));
    pio_.write(0xCF8, data);
  }

  vmm::Bus& pio_;
  vmm::Bus& mmio_;
  test::FakeInterrupts& interrupts_;
  uint32_t slot_;
};

}  // namespace testing_support
