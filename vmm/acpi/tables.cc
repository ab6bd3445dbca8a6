#include "vmm/acpi/tables.h"

#include <fmt/format.h>

#include <numeric>
#include <span>
#include <string_view>
#include <vector>

#include "vmm/acpi/dsdt.h"
#include "vmm/acpi/generation_id.h"
#include "vmm/acpi/structures.h"
#include "vmm/base/endian.h"
#include "vmm/layout.h"

namespace vmm::acpi {
namespace {

using Bytes = std::vector<uint8_t>;

constexpr std::array<char, 6> kOemId = {'M', 'V', 'M', 'M', ' ', ' '};
constexpr std::array<char, 8> kOemTableId = {'M', 'I', 'N', 'I', 'V', 'M', 'M', ' '};

// FADT boot architecture, table 5.11. No 8042: it only resets, and Linux would look for a keyboard.
constexpr uint16_t kBootLegacyDevices = 1 << 0;
constexpr uint16_t kBootNoVga = 1 << 2;

// FADT flags, table 5.10. The power button is a fixed one: its flag is not set.
constexpr uint32_t kWbinvd = 1 << 0;
constexpr uint32_t kC1OnAllCpus = 1 << 2;
constexpr uint32_t kNoFixedSleepButton = 1 << 5;
constexpr uint32_t kNoFixedRtcWake = 1 << 6;
constexpr uint32_t kTimer32Bits = 1 << 8;
constexpr uint32_t kResetRegister = 1 << 10;
constexpr uint32_t kHeadless = 1 << 12;
constexpr uint16_t kNoC2 = 101;  // latencies above 100 and 1000 µs: the state is not there
constexpr uint16_t kNoC3 = 1001;
constexpr uint8_t kCenturyRegister = 0x32;

constexpr uint32_t kMadtDualPic = 1 << 0;
constexpr uint32_t kMadtEnabled = 1 << 0;
constexpr uint16_t kActiveHigh = 1 << 0;
constexpr uint16_t kLevelTriggered = 3 << 2;
constexpr uint8_t kLint1 = 1;

constexpr uint64_t kAlignment = 64;  // the FACS needs it

template <typename T>
void append(Bytes& bytes, const T& value) {
  auto raw = std::as_bytes(std::span(&value, 1));
  for (std::byte byte : raw) bytes.push_back(static_cast<uint8_t>(byte));
}

// What makes the bytes add up to zero, where the checksum's own byte is zero.
uint8_t checksum(std::span<const uint8_t> bytes) {
  return static_cast<uint8_t>(-std::accumulate(bytes.begin(), bytes.end(), 0u));
}

TableHeader header(std::string_view signature, uint8_t revision) {
  TableHeader header;
  signature.copy(header.signature.data(), 4);
  header.revision = revision;
  header.oem_id = kOemId;
  header.oem_table_id = kOemTableId;
  header.oem_revision = 1;
  header.creator_id = {'M', 'V', 'M', 'M'};
  header.creator_revision = 1;
  return header;
}

// Fills in length and checksum of a table that is complete otherwise.
Bytes finish(Bytes table) {
  base::store_le(table, offsetof(TableHeader, length), static_cast<uint32_t>(table.size()));
  table[offsetof(TableHeader, checksum)] = checksum(table);
  return table;
}

template <typename T>
Bytes finish(const T& table) {
  Bytes bytes;
  append(bytes, table);
  return finish(std::move(bytes));
}

Bytes dsdt(const Config& config) {
  constexpr uint8_t kIntegersOf64Bits = 2;
  Bytes table;
  append(table, header("DSDT", kIntegersOf64Bits));
  aml::Term body = dsdt_body(config.cpus);
  table.insert(table.end(), body.bytes.begin(), body.bytes.end());
  return finish(std::move(table));
}

GenericAddress port(uint16_t address, uint8_t bits, GenericAddress::AccessSize access) {
  return {GenericAddress::kIo, bits, 0, access, address};
}

Bytes fadt(Gpa facs, Gpa dsdt) {
  using namespace layout;
  Fadt table;
  table.header = header("FACP", 6);
  table.minor_revision = 3;
  table.facs = static_cast<uint32_t>(facs.value);
  table.dsdt = static_cast<uint32_t>(dsdt.value);
  table.x_dsdt = dsdt.value;
  table.sci_interrupt = kGsiSci;

  table.pm1a_event = kPortPm1Event;
  table.pm1_event_length = 4;
  table.x_pm1a_event = port(kPortPm1Event, 32, GenericAddress::kWord);
  table.pm1a_control = kPortPm1Control;
  table.pm1_control_length = 2;
  table.x_pm1a_control = port(kPortPm1Control, 16, GenericAddress::kWord);
  table.pm_timer = kPortPmTimer;
  table.pm_timer_length = 4;
  table.x_pm_timer = port(kPortPmTimer, 32, GenericAddress::kDword);

  table.gpe0 = kPortGpe0;
  table.gpe0_length = 2;  // half status, half enable: events 0 to 7
  table.x_gpe0 = port(kPortGpe0, 16, GenericAddress::kByte);

  table.c2_latency_us = kNoC2;
  table.c3_latency_us = kNoC3;
  table.rtc_century = kCenturyRegister;
  table.boot_architecture = kBootLegacyDevices | kBootNoVga;
  table.flags = kWbinvd | kC1OnAllCpus | kNoFixedSleepButton | kNoFixedRtcWake | kTimer32Bits |
                kResetRegister | kHeadless;
  table.reset_register = port(kPortReset, 8, GenericAddress::kByte);
  table.reset_value = kResetValue;
  return finish(table);
}

Bytes madt(const Config& config) {
  Bytes table;
  append(table, Madt{.header = header("APIC", 5),
                     .local_apic = static_cast<uint32_t>(layout::kLocalApic.value),
                     .flags = kMadtDualPic});
  for (uint32_t cpu = 0; cpu < config.cpus; cpu++) {
    auto id = static_cast<uint8_t>(cpu);
    append(table, MadtLocalApic{.processor_uid = id, .apic_id = id, .flags = kMadtEnabled});
  }
  append(table, MadtIoApic{.address = static_cast<uint32_t>(layout::kIoApic.value)});
  append(table, MadtSourceOverride{.source = layout::kGsiSci,
                                   .gsi = layout::kGsiSci,
                                   .flags = kActiveHigh | kLevelTriggered});
  append(table, MadtLocalApicNmi{.lint = kLint1});
  return finish(std::move(table));
}

Bytes mcfg() {
  constexpr uint64_t kEcamBytesPerBus = 1 << 20;
  static_assert(layout::kPciEcamSize % kEcamBytesPerBus == 0);
  return finish(Mcfg{.header = header("MCFG", 1),
                     .base = layout::kPciEcam.value,
                     .last_bus = layout::kPciEcamSize / kEcamBytesPerBus - 1});
}

Bytes xsdt(std::span<const Gpa> tables) {
  Bytes table;
  append(table, header("XSDT", 1));
  for (Gpa gpa : tables) append(table, gpa.value);
  return finish(std::move(table));
}

Bytes rsdp(Gpa xsdt) {
  constexpr size_t kFirstVersionSize = 20;
  Rsdp pointer{.oem_id = kOemId, .xsdt = xsdt.value};
  Bytes bytes;
  append(bytes, pointer);
  bytes[offsetof(Rsdp, checksum)] = checksum(std::span(bytes).first(kFirstVersionSize));
  bytes[offsetof(Rsdp, extended_checksum)] = checksum(bytes);
  return bytes;
}

// Lays tables one behind the other.
class Writer {
 public:
  explicit Writer(GuestMemory& memory) : memory_(memory) {}

  base::Result<Gpa> place(const Bytes& table) {
    Gpa at = next_;
    if (at.value + table.size() > layout::kAcpiTables.value + layout::kAcpiTablesSize) {
      return base::fail(fmt::format("ACPI tables do not fit in {:#x} bytes at {:#x}",
                                    layout::kAcpiTablesSize, layout::kAcpiTables.value));
    }
    TRY(memory_.write(at, std::as_bytes(std::span(table))));
    next_ = Gpa{(at.value + table.size() + kAlignment - 1) / kAlignment * kAlignment};
    return at;
  }

 private:
  GuestMemory& memory_;
  Gpa next_ = layout::kAcpiTables;
};

}  // namespace

base::Result<Gpa> write_tables(GuestMemory& memory, const Config& config) {
  if (config.cpus < 1 || config.cpus > layout::kMaxCpus) {
    return base::fail(fmt::format("ACPI tables for {} CPUs: 1 to {} are possible", config.cpus,
                                  layout::kMaxCpus));
  }
  Writer writer(memory);
  // The RSDP comes first, on its 16-byte boundary in the BIOS area; what it refers to is known
  // last, so its place is taken and then filled.
  TRY_ASSIGN(Gpa rsdp_at, writer.place(Bytes(sizeof(Rsdp))));
  Bytes facs;
  append(facs, Facs{});
  TRY_ASSIGN(Gpa facs_at, writer.place(facs));
  TRY_ASSIGN(Gpa dsdt_at, writer.place(dsdt(config)));
  TRY_ASSIGN(Gpa fadt_at, writer.place(fadt(facs_at, dsdt_at)));
  TRY_ASSIGN(Gpa madt_at, writer.place(madt(config)));
  TRY_ASSIGN(Gpa mcfg_at, writer.place(mcfg()));
  TRY_ASSIGN(Gpa xsdt_at, writer.place(xsdt(std::array{fadt_at, madt_at, mcfg_at})));
  Bytes pointer = rsdp(xsdt_at);
  TRY(memory.write(rsdp_at, std::as_bytes(std::span(pointer))));
  TRY(write_generation_id(memory));
  return rsdp_at;
}

}  // namespace vmm::acpi
