// The one table of who sits where: guest-physical layout, I/O ports, interrupt lines. The ACPI
// tables, the boot parameters and the devices all take their numbers from here.
//
//   0x0000'0000  RAM                        boot data below 640 KiB, kernel from 1 MiB
//   0xC000'0000  32-bit PCI memory window   (end of low RAM: kLowRamEnd)
//   0xE000'0000  PCI ECAM, bus 0
//   0xFEC0'0000  IOAPIC
//   0xFEE0'0000  local APICs
//   0xFFFB'C000  KVM's identity map and TSS pages (Intel real mode)
//   0x1'0000'0000  RAM above the hole
#pragma once

#include <cstdint>

#include "vmm/guest_address.h"

namespace vmm::layout {

inline constexpr uint64_t kMiB = 1ull << 20;
inline constexpr uint64_t kGiB = 1ull << 30;

inline constexpr Gpa kLowRamEnd{3 * kGiB};
inline constexpr Gpa kHighRamStart{4 * kGiB};

inline constexpr Gpa kPciWindow{0xC000'0000};
inline constexpr uint64_t kPciWindowSize = 0x2000'0000;
inline constexpr Gpa kPciEcam{0xE000'0000};
inline constexpr uint64_t kPciEcamSize = 0x10'0000;  // one bus: 32 devices x 8 functions x 4 KiB
inline constexpr Gpa kIoApic{0xFEC0'0000};
inline constexpr Gpa kLocalApic{0xFEE0'0000};
inline constexpr Gpa kKvmIdentityMap{0xFFFB'C000};
inline constexpr Gpa kKvmTss{0xFFFB'D000};

// Below 1 MiB. 0xA'0000 to 0xF'FFFF is not RAM for the guest but backed by it (ACPI lives there).
inline constexpr Gpa kGdt{0x500};
inline constexpr Gpa kPvhStartInfo{0x6000};
inline constexpr Gpa kZeroPage{0x7000};
inline constexpr Gpa kBootStack{0x8FF0};
inline constexpr Gpa kPageTables{0x9000};  // PML4, PDPT, then 4 page directories: 6 pages
inline constexpr Gpa kCommandLine{0x2'0000};
inline constexpr uint64_t kCommandLineMax = 0x1'0000;
inline constexpr Gpa kLowRamHole{0xA'0000};
inline constexpr Gpa kAcpiTables{0xE'0000};
inline constexpr uint64_t kAcpiTablesSize = 0x1'F000;
inline constexpr Gpa kGenerationId{0xF'F000};  // 16 bytes, alone on their page
inline constexpr Gpa kKernelStart{0x10'0000};

// I/O ports.
inline constexpr uint16_t kPortI8042 = 0x60;  // data 0x60, command and status 0x64
inline constexpr uint16_t kPortRtc = 0x70;    // index 0x70, data 0x71
inline constexpr uint16_t kPortExit = 0xF4;   // the guest's exit status, see docs/devices.md
inline constexpr uint16_t kPortSerial = 0x3F8;
inline constexpr uint16_t kPortPvpanic = 0x505;
inline constexpr uint16_t kPortPm1Event = 0x600;    // status 0x600, enable 0x602
inline constexpr uint16_t kPortPm1Control = 0x604;  // sleep type and enable
inline constexpr uint16_t kPortPmTimer = 0x608;     // 3.579545 MHz, 32 bits
inline constexpr uint16_t kPortReset = 0x60C;       // FADT reset register
inline constexpr uint8_t kResetValue = 1;           // what resets, written there
inline constexpr uint16_t kPortGpe0 = 0x60E;        // status 0x60E, enable 0x60F
inline constexpr unsigned kGpeGeneration = 0;       // the generation ID has changed
inline constexpr uint8_t kSleepTypeOff = 5;         // SLP_TYP of \_S5, written to PM1 control
inline constexpr uint16_t kPortPciConfig = 0xCF8;   // address 0xCF8, data 0xCFC

// Global system interrupts 0 to 23 are the IOAPIC's pins; MSI routes are allocated above.
inline constexpr uint32_t kGsiSerial = 4;
inline constexpr uint32_t kGsiSci = 9;
inline constexpr uint32_t kFirstMsiGsi = 24;

inline constexpr uint32_t kMaxCpus = 64;

}  // namespace vmm::layout
