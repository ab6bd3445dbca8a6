#include "virtio_pci.h"

#include <stddef.h>

#include "cpu.h"
#include "exit.h"
#include "interrupts.h"
#include "memory.h"
#include "print.h"

enum {
  kVirtioVendor = 0x1af4,
  kModernDeviceBase = 0x1040,
  kVendorCapability = 0x09,

  kCapabilityType = 3,
  kCapabilityBar = 4,
  kCapabilityOffset = 8,
  kCapabilityNotifyMultiplier = 16,
  kTypeCommon = 1,
  kTypeNotify = 2,
  kTypeDevice = 4,

  kStatusAcknowledge = 1,
  kStatusDriver = 2,
  kStatusDriverOk = 4,
  kStatusFeaturesOk = 8,
  kNoVector = 0xffff,
};

#define FAIL(device, ...)                               \
  do {                                                  \
    Print("virtio: FAIL slot=%u ", (device)->pci.slot); \
    Print(__VA_ARGS__);                                 \
    Exit(kExitFailed);                                  \
  } while (0)

// Ids of transitional devices (virtio 1.2, 4.1.2.1): they speak version 1 as well.
static uint16_t TransitionalId(enum VirtioType type) {
  return type == kVirtioBlock ? 0x1001 : 0x1005;
}

static void FindRegisters(struct VirtioDevice *device) {
  unsigned capability = 0;
  while ((capability = PciCapability(&device->pci, kVendorCapability, capability)) != 0) {
    uint8_t bar = PciRead8(&device->pci, capability + kCapabilityBar);
    if (bar >= kPciBars || device->pci.bar_gpa[bar] == 0) continue;
    uint64_t gpa =
        device->pci.bar_gpa[bar] + PciRead32(&device->pci, capability + kCapabilityOffset);
    switch (PciRead8(&device->pci, capability + kCapabilityType)) {
      case kTypeCommon:
        if (device->common == NULL) device->common = MemoryPointer(gpa);
        break;
      case kTypeNotify:
        if (device->notify_gpa != 0) break;
        device->notify_gpa = gpa;
        device->notify_multiplier =
            PciRead32(&device->pci, capability + kCapabilityNotifyMultiplier);
        break;
      case kTypeDevice:
        if (device->config == NULL) device->config = MemoryPointer(gpa);
        break;
    }
  }
  if (device->common == NULL || device->notify_gpa == 0)
    FAIL(device, "no common or notify structure in its capabilities\n");
}

bool VirtioFind(enum VirtioType type, unsigned number, struct VirtioDevice *device) {
  uint8_t slot = 0;
  *device = (struct VirtioDevice){0};
  while (PciFind(kVirtioVendor, &slot, &device->pci)) {
    if (device->pci.device != kModernDeviceBase + type &&
        device->pci.device != TransitionalId(type))
      continue;
    if (number-- > 0) continue;
    PciEnable(&device->pci);
    FindRegisters(device);
    return true;
  }
  return false;
}

void VirtioReset(struct VirtioDevice *device) {
  device->common->device_status = 0;
  while (device->common->device_status != 0) CpuRelax();
}

void VirtioStart(struct VirtioDevice *device, uint64_t wanted_features) {
  volatile struct VirtioCommonConfig *common = device->common;
  VirtioReset(device);
  common->device_status = kStatusAcknowledge;
  common->device_status = kStatusAcknowledge | kStatusDriver;
  common->device_feature_select = 0;
  device->offered = common->device_feature;
  common->device_feature_select = 1;
  device->offered |= (uint64_t)common->device_feature << 32;
  if (!(device->offered & kVirtioVersion1))
    FAIL(device, "features 0x%lx: not a virtio 1 device\n", device->offered);
  device->features = device->offered & (wanted_features | kVirtioVersion1);
  common->driver_feature_select = 0;
  common->driver_feature = (uint32_t)device->features;
  common->driver_feature_select = 1;
  common->driver_feature = (uint32_t)(device->features >> 32);
  uint8_t status = kStatusAcknowledge | kStatusDriver | kStatusFeaturesOk;
  common->device_status = status;
  if (common->device_status != status)
    FAIL(device, "features 0x%lx refused: status 0x%x\n", device->features, common->device_status);
}

void VirtioSetUpQueue(struct VirtioDevice *device, uint16_t index, uint16_t most, int interrupt,
                      struct Virtqueue *queue) {
  volatile struct VirtioCommonConfig *common = device->common;
  if (index >= common->num_queues) FAIL(device, "queue %u of %u\n", index, common->num_queues);
  common->queue_select = index;
  uint16_t size = common->queue_size;
  if (size == 0) FAIL(device, "queue %u has size 0\n", index);
  while (size > most) size /= 2;
  common->queue_size = size;
  VirtqueueInit(queue, size, device->features & kVirtioRingIndirectDesc,
                device->features & kVirtioRingEventIdx);

  uint16_t vector = interrupt < 0 ? kNoVector : (uint16_t)interrupt;
  if (interrupt >= 0 &&
      !PciMsixSet(&device->pci, vector, InterruptMessageAddress(), InterruptMessageData(vector)))
    FAIL(device, "no MSI-X entry %u\n", vector);
  common->queue_msix_vector = vector;
  if (common->queue_msix_vector != vector)
    FAIL(device, "MSI-X vector %u for queue %u refused\n", vector, index);

  uint64_t descriptors = (uint64_t)queue->descriptors;
  uint64_t avail = (uint64_t)queue->avail, used = (uint64_t)queue->used;
  common->queue_desc_low = (uint32_t)descriptors;
  common->queue_desc_high = (uint32_t)(descriptors >> 32);
  common->queue_driver_low = (uint32_t)avail;
  common->queue_driver_high = (uint32_t)(avail >> 32);
  common->queue_device_low = (uint32_t)used;
  common->queue_device_high = (uint32_t)(used >> 32);
  queue->notify = MemoryPointer(device->notify_gpa +
                                (uint64_t)common->queue_notify_off * device->notify_multiplier);
  queue->notify_value = index;
  common->queue_enable = 1;
}

void VirtioGo(struct VirtioDevice *device) {
  device->common->device_status =
      kStatusAcknowledge | kStatusDriver | kStatusFeaturesOk | kStatusDriverOk;
}
