#include "pci.h"

#include "exit.h"
#include "memory.h"
#include "options.h"
#include "print.h"

#define kDefaultEcam 0xe0000000ull
#define kDefaultMmio 0xc0000000ull
#define kMapped (4ull << 30)  // MMIO above 4 GiB is not in the page tables

enum {
  kVendorId = 0x00,
  kDeviceId = 0x02,
  kCommand = 0x04,
  kStatus = 0x06,
  kBar0 = 0x10,
  kCapabilityPointer = 0x34,

  kCommandMemory = 1 << 1,
  kCommandBusMaster = 1 << 2,
  kStatusCapabilities = 1 << 4,
  kBarIsIo = 1 << 0,
  kBarIs64Bit = 1 << 2,
  kBarFlagBits = 0xf,

  kCapabilityMsix = 0x11,
  kMsixControl = 2,
  kMsixTable = 4,
  kMsixSizeMask = 0x7ff,
  kMsixEnable = 1 << 15,
  kMsixEntryBytes = 16,
  kMostCapabilities = 48,
  kSlots = 32,
};

static uint64_t next_mmio_;

static volatile void *Config(const struct PciDevice *device, unsigned offset) {
  return MemoryPointer(device->config_gpa + offset);
}

uint8_t PciRead8(const struct PciDevice *device, unsigned offset) {
  return *(volatile uint8_t *)Config(device, offset);
}

uint16_t PciRead16(const struct PciDevice *device, unsigned offset) {
  return *(volatile uint16_t *)Config(device, offset);
}

uint32_t PciRead32(const struct PciDevice *device, unsigned offset) {
  return *(volatile uint32_t *)Config(device, offset);
}

void PciWrite16(const struct PciDevice *device, unsigned offset, uint16_t value) {
  *(volatile uint16_t *)Config(device, offset) = value;
}

static void PciWrite32(const struct PciDevice *device, unsigned offset, uint32_t value) {
  *(volatile uint32_t *)Config(device, offset) = value;
}

bool PciFind(uint16_t vendor, uint8_t *slot, struct PciDevice *found) {
  uint64_t ecam = OptionUpTo("ecam", kDefaultEcam, kMapped - (1 << 20));
  while (*slot < kSlots) {
    struct PciDevice device = {.slot = *slot, .config_gpa = ecam + ((uint64_t)*slot << 15)};
    ++*slot;
    device.vendor = PciRead16(&device, kVendorId);
    device.device = PciRead16(&device, kDeviceId);
    if (device.vendor != vendor) continue;
    *found = device;
    return true;
  }
  return false;
}

// Size from the bits that can be written (PCI Local Bus 3.0, 6.2.5.1).
static uint64_t BarBytes(const struct PciDevice *device, unsigned offset, bool wide) {
  uint32_t low = PciRead32(device, offset), high = wide ? PciRead32(device, offset + 4) : 0;
  PciWrite32(device, offset, UINT32_MAX);
  if (wide) PciWrite32(device, offset + 4, UINT32_MAX);
  uint64_t mask = PciRead32(device, offset) & ~(uint32_t)kBarFlagBits;
  mask |= (uint64_t)(wide ? PciRead32(device, offset + 4) : UINT32_MAX) << 32;
  PciWrite32(device, offset, low);
  if (wide) PciWrite32(device, offset + 4, high);
  return (uint32_t)mask == 0 && !wide ? 0 : 0 - mask;
}

static uint64_t AssignBar(const struct PciDevice *device, unsigned offset, bool wide) {
  uint64_t bytes = BarBytes(device, offset, wide);
  if (bytes == 0) return 0;
  if (next_mmio_ == 0) next_mmio_ = OptionUpTo("mmio", kDefaultMmio, kMapped - 1);
  uint64_t gpa = (next_mmio_ + bytes - 1) & ~(bytes - 1);
  next_mmio_ = gpa + bytes;
  if (next_mmio_ > kMapped)
    FAIL_USAGE("pci: no room below 4 GiB for a BAR of %lu bytes: give another mmio=\n", bytes);
  PciWrite32(device, offset, (uint32_t)gpa);
  if (wide) PciWrite32(device, offset + 4, 0);
  return gpa;
}

void PciEnable(struct PciDevice *device) {
  uint16_t command = PciRead16(device, kCommand);
  PciWrite16(device, kCommand, command & ~(uint16_t)kCommandMemory);
  for (unsigned i = 0; i < kPciBars; i++) {
    unsigned offset = kBar0 + i * 4;
    uint32_t low = PciRead32(device, offset);
    if (low & kBarIsIo) continue;
    bool wide = low & kBarIs64Bit && i + 1 < kPciBars;
    uint64_t gpa = low & ~(uint32_t)kBarFlagBits;
    if (wide) gpa |= (uint64_t)PciRead32(device, offset + 4) << 32;
    if (gpa == 0) gpa = AssignBar(device, offset, wide);
    if (gpa >= kMapped)
      FAIL_USAGE("pci: BAR %u of slot %u is at 0x%lx, payloads reach MMIO below 4 GiB only\n", i,
                 device->slot, gpa);
    device->bar_gpa[i] = gpa;
    if (wide) i++;
  }
  PciWrite16(device, kCommand, command | kCommandMemory | kCommandBusMaster);
}

unsigned PciCapability(const struct PciDevice *device, uint8_t id, unsigned after) {
  if (!(PciRead16(device, kStatus) & kStatusCapabilities)) return 0;
  unsigned offset = PciRead8(device, after == 0 ? kCapabilityPointer : after + 1) & 0xfc;
  for (unsigned i = 0; offset != 0 && i < kMostCapabilities; i++) {
    if (PciRead8(device, offset) == id) return offset;
    offset = PciRead8(device, offset + 1) & 0xfc;
  }
  return 0;
}

bool PciMsixSet(const struct PciDevice *device, unsigned entry, uint64_t address, uint32_t data) {
  unsigned capability = PciCapability(device, kCapabilityMsix, 0);
  if (capability == 0) return false;
  uint16_t control = PciRead16(device, capability + kMsixControl);
  if (entry > (control & kMsixSizeMask)) return false;
  uint32_t table = PciRead32(device, capability + kMsixTable);
  if ((table & 7) >= kPciBars || device->bar_gpa[table & 7] == 0) return false;
  volatile uint32_t *words =
      MemoryPointer(device->bar_gpa[table & 7] + (table & ~7u) + (uint64_t)entry * kMsixEntryBytes);
  PciWrite16(device, capability + kMsixControl, control | kMsixEnable);
  words[0] = (uint32_t)address;
  words[1] = (uint32_t)(address >> 32);
  words[2] = data;
  words[3] = 0;  // not masked
  return true;
}
