// A virtio 1.x device on PCI (virtio 1.2, 4.1): found, reset, negotiated, its queues set up.
// The payload drives one device at a time and checks the steps a driver may rely on.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "pci.h"
#include "virtqueue.h"

enum VirtioType { kVirtioBlock = 2, kVirtioRng = 4 };

#define kVirtioRingIndirectDesc (1ull << 28)
#define kVirtioRingEventIdx (1ull << 29)
#define kVirtioVersion1 (1ull << 32)

struct VirtioCommonConfig {
  uint32_t device_feature_select, device_feature;
  uint32_t driver_feature_select, driver_feature;
  uint16_t config_msix_vector, num_queues;
  uint8_t device_status, config_generation;
  uint16_t queue_select, queue_size, queue_msix_vector, queue_enable, queue_notify_off;
  uint32_t queue_desc_low, queue_desc_high;
  uint32_t queue_driver_low, queue_driver_high;
  uint32_t queue_device_low, queue_device_high;
};
_Static_assert(sizeof(struct VirtioCommonConfig) == 56, "layout is virtio's");

struct VirtioDevice {
  struct PciDevice pci;
  volatile struct VirtioCommonConfig *common;
  volatile uint8_t *config;  // the device type's own, NULL when it has none
  uint64_t notify_gpa;
  uint32_t notify_multiplier;
  uint64_t offered, features;  // features: what was agreed on
};

// The `number`-th device (from 0) of this type on bus 0; enabled, not yet reset.
bool VirtioFind(enum VirtioType type, unsigned number, struct VirtioDevice *device);

// Reset, then negotiation of what is both offered and wanted (version 1 always). Ends the
// payload with kExitFailed when the device does not follow.
void VirtioStart(struct VirtioDevice *device, uint64_t wanted_features);

// Queue `index` with at most `most` entries. `interrupt` below kInterruptVectors asks for
// MSI-X entry and vector of that number, a negative one for none.
void VirtioSetUpQueue(struct VirtioDevice *device, uint16_t index, uint16_t most, int interrupt,
                      struct Virtqueue *queue);

// DRIVER_OK.
void VirtioGo(struct VirtioDevice *device);

// Back to the state after reset; the queues' memory is ours again.
void VirtioReset(struct VirtioDevice *device);
