// The tables of fixed layout, field by field as ACPI 6.5 chapter 5 and the PCI Firmware
// Specification 3.3 section 4.1.2 number them. Only tables.cc and its test use them.
#pragma once

#include <array>
#include <cstdint>

namespace vmm::acpi {

#pragma pack(push, 1)

struct Rsdp {
  std::array<char, 8> signature = {'R', 'S', 'D', ' ', 'P', 'T', 'R', ' '};
  uint8_t checksum = 0;  // of the first 20 bytes
  std::array<char, 6> oem_id{};
  uint8_t revision = 2;
  uint32_t rsdt = 0;
  uint32_t length = 36;
  uint64_t xsdt = 0;
  uint8_t extended_checksum = 0;  // of all
  std::array<uint8_t, 3> reserved{};
};
static_assert(sizeof(Rsdp) == 36);

struct TableHeader {
  std::array<char, 4> signature{};
  uint32_t length = 0;
  uint8_t revision = 0;
  uint8_t checksum = 0;
  std::array<char, 6> oem_id{};
  std::array<char, 8> oem_table_id{};
  uint32_t oem_revision = 0;
  std::array<char, 4> creator_id{};
  uint32_t creator_revision = 0;
};
static_assert(sizeof(TableHeader) == 36);

struct GenericAddress {
  enum Space : uint8_t { kIo = 1 };
  enum AccessSize : uint8_t { kByte = 1, kWord = 2, kDword = 3 };
  uint8_t space = 0;
  uint8_t bits = 0;
  uint8_t bit_offset = 0;
  uint8_t access_size = 0;
  uint64_t address = 0;
};
static_assert(sizeof(GenericAddress) == 12);

struct Fadt {  // 5.2.9
  TableHeader header;
  uint32_t facs = 0;
  uint32_t dsdt = 0;
  uint8_t reserved0 = 0;
  uint8_t preferred_pm_profile = 0;
  uint16_t sci_interrupt = 0;
  uint32_t smi_command = 0;
  uint8_t acpi_enable = 0;
  uint8_t acpi_disable = 0;
  uint8_t s4bios_request = 0;
  uint8_t pstate_control = 0;
  uint32_t pm1a_event = 0;
  uint32_t pm1b_event = 0;
  uint32_t pm1a_control = 0;
  uint32_t pm1b_control = 0;
  uint32_t pm2_control = 0;
  uint32_t pm_timer = 0;
  uint32_t gpe0 = 0;
  uint32_t gpe1 = 0;
  uint8_t pm1_event_length = 0;
  uint8_t pm1_control_length = 0;
  uint8_t pm2_control_length = 0;
  uint8_t pm_timer_length = 0;
  uint8_t gpe0_length = 0;
  uint8_t gpe1_length = 0;
  uint8_t gpe1_base = 0;
  uint8_t cst_control = 0;
  uint16_t c2_latency_us = 0;
  uint16_t c3_latency_us = 0;
  uint16_t flush_size = 0;
  uint16_t flush_stride = 0;
  uint8_t duty_offset = 0;
  uint8_t duty_width = 0;
  uint8_t rtc_day_alarm = 0;
  uint8_t rtc_month_alarm = 0;
  uint8_t rtc_century = 0;
  uint16_t boot_architecture = 0;
  uint8_t reserved1 = 0;
  uint32_t flags = 0;
  GenericAddress reset_register;
  uint8_t reset_value = 0;
  uint16_t arm_boot_architecture = 0;
  uint8_t minor_revision = 0;
  uint64_t x_facs = 0;
  uint64_t x_dsdt = 0;
  GenericAddress x_pm1a_event;
  GenericAddress x_pm1b_event;
  GenericAddress x_pm1a_control;
  GenericAddress x_pm1b_control;
  GenericAddress x_pm2_control;
  GenericAddress x_pm_timer;
  GenericAddress x_gpe0;
  GenericAddress x_gpe1;
  GenericAddress sleep_control;
  GenericAddress sleep_status;
  uint64_t hypervisor_vendor = 0;
};
static_assert(sizeof(Fadt) == 276);

struct Facs {  // 5.2.10; no header, no checksum, aligned to 64 bytes
  std::array<char, 4> signature = {'F', 'A', 'C', 'S'};
  uint32_t length = 64;
  uint32_t hardware_signature = 0;
  uint32_t waking_vector = 0;
  uint32_t global_lock = 0;
  uint32_t flags = 0;
  uint64_t x_waking_vector = 0;
  uint8_t version = 2;
  std::array<uint8_t, 3> reserved0{};
  uint32_t ospm_flags = 0;
  std::array<uint8_t, 24> reserved1{};
};
static_assert(sizeof(Facs) == 64);

struct Madt {  // 5.2.12; entries follow
  TableHeader header;
  uint32_t local_apic = 0;
  uint32_t flags = 0;
};
static_assert(sizeof(Madt) == 44);

struct MadtLocalApic {
  uint8_t type = 0;
  uint8_t length = 8;
  uint8_t processor_uid = 0;
  uint8_t apic_id = 0;
  uint32_t flags = 0;
};
static_assert(sizeof(MadtLocalApic) == 8);

struct MadtIoApic {
  uint8_t type = 1;
  uint8_t length = 12;
  uint8_t id = 0;
  uint8_t reserved = 0;
  uint32_t address = 0;
  uint32_t gsi_base = 0;
};
static_assert(sizeof(MadtIoApic) == 12);

struct MadtSourceOverride {
  uint8_t type = 2;
  uint8_t length = 10;
  uint8_t bus = 0;  // ISA
  uint8_t source = 0;
  uint32_t gsi = 0;
  uint16_t flags = 0;
};
static_assert(sizeof(MadtSourceOverride) == 10);

struct MadtLocalApicNmi {
  uint8_t type = 4;
  uint8_t length = 6;
  uint8_t processor_uid = 0xFF;  // every processor
  uint16_t flags = 0;
  uint8_t lint = 0;
};
static_assert(sizeof(MadtLocalApicNmi) == 6);

struct Mcfg {  // one allocation
  TableHeader header;
  uint64_t reserved0 = 0;
  uint64_t base = 0;
  uint16_t segment = 0;
  uint8_t first_bus = 0;
  uint8_t last_bus = 0;
  uint32_t reserved1 = 0;
};
static_assert(sizeof(Mcfg) == 60);

#pragma pack(pop)

}  // namespace vmm::acpi
