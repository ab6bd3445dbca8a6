// PCI functions of bus 0 through the memory-mapped configuration space (ECAM, PCI Express
// base specification 7.2.2). The options ecam= and mmio= say where that space is and where
// BARs may go that the loader left unassigned.
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum { kPciBars = 6 };

struct PciDevice {
  uint8_t slot;
  uint16_t vendor, device;
  uint64_t config_gpa;
  uint64_t bar_gpa[kPciBars];  // 0: none, I/O ports, or the upper half of the one before
};

// The next function 0 on bus 0 with this vendor, from *slot on; *slot moves behind it.
bool PciFind(uint16_t vendor, uint8_t *slot, struct PciDevice *found);

// Sizes and, where they are zero, assigns the memory BARs; enables decoding and bus mastering.
void PciEnable(struct PciDevice *device);

uint8_t PciRead8(const struct PciDevice *device, unsigned offset);
uint16_t PciRead16(const struct PciDevice *device, unsigned offset);
uint32_t PciRead32(const struct PciDevice *device, unsigned offset);
void PciWrite16(const struct PciDevice *device, unsigned offset, uint16_t value);

// Offset of the next capability with this id behind `after` (0: from the start), or 0.
unsigned PciCapability(const struct PciDevice *device, uint8_t id, unsigned after);

// Sends MSI-X entry `entry` to the address; false when there is no such entry.
bool PciMsixSet(const struct PciDevice *device, unsigned entry, uint64_t address, uint32_t data);
