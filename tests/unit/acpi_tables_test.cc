#include <gtest/gtest.h>
#include <sys/wait.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <numeric>
#include <string>
#include <vector>

#include "vmm/acpi/generation_id.h"
#include "vmm/acpi/structures.h"
#include "vmm/acpi/tables.h"
#include "vmm/base/endian.h"
#include "vmm/layout.h"

namespace vmm::acpi {
namespace {

using Bytes = std::vector<uint8_t>;

// A copy of a field: a packed one cannot be referred to.
template <typename T>
T value(T field) {
  return field;
}

uint8_t sum(std::span<const uint8_t> bytes) {
  return static_cast<uint8_t>(std::accumulate(bytes.begin(), bytes.end(), 0u));
}

// A guest's view: everything is found from the RSDP.
class AcpiTables : public testing::TestWithParam<uint32_t> {
 protected:
  void SetUp() override {
    memory_ = std::move(*GuestMemory::create(64 * layout::kMiB));
    auto rsdp = write_tables(*memory_, {.cpus = GetParam()});
    ASSERT_TRUE(rsdp) << rsdp.error().text();
    rsdp_at_ = *rsdp;
    rsdp_ = *memory_->load<Rsdp>(rsdp_at_);
    Bytes xsdt = table(Gpa{rsdp_.xsdt});
    ASSERT_EQ(signature(xsdt), "XSDT");
    for (size_t at = sizeof(TableHeader); at < xsdt.size(); at += 8) {
      keep(Gpa{base::load_le<uint64_t>(xsdt, at)});
    }
    tables_["XSDT"] = xsdt;
    keep(Gpa{value(as<Fadt>("FACP").x_dsdt)});
  }

  Bytes bytes(Gpa gpa, size_t size) {
    Bytes copy(size);
    EXPECT_TRUE(memory_->read(gpa, std::as_writable_bytes(std::span(copy))));
    return copy;
  }
  Bytes table(Gpa gpa) {
    EXPECT_GE(gpa, layout::kAcpiTables);
    Bytes header = bytes(gpa, sizeof(TableHeader));
    auto length = base::load_le<uint32_t>(header, offsetof(TableHeader, length));
    EXPECT_LE(gpa.value + length, layout::kAcpiTables.value + layout::kAcpiTablesSize);
    return bytes(gpa, length);
  }
  static std::string signature(const Bytes& table) { return {table.begin(), table.begin() + 4}; }
  void keep(Gpa gpa) {
    Bytes found = table(gpa);
    tables_[signature(found)] = found;
  }
  template <typename T>
  T as(const std::string& name) {
    T value;
    EXPECT_GE(tables_[name].size(), sizeof value);
    std::memcpy(&value, tables_[name].data(), sizeof value);
    return value;
  }

  std::unique_ptr<GuestMemory> memory_;
  Gpa rsdp_at_;
  Rsdp rsdp_;
  std::map<std::string, Bytes> tables_;
};

TEST_P(AcpiTables, AreFoundFromTheRsdpWithRightChecksums) {
  EXPECT_EQ(rsdp_at_.value % 16, 0u) << "where a search would look";
  EXPECT_EQ(value(rsdp_.revision), 2);
  EXPECT_EQ(value(rsdp_.rsdt), 0u);
  Bytes pointer = bytes(rsdp_at_, sizeof(Rsdp));
  EXPECT_EQ(sum(std::span(pointer).first(20)), 0);
  EXPECT_EQ(sum(pointer), 0);
  for (const char* name : {"XSDT", "FACP", "APIC", "MCFG", "DSDT"}) {
    ASSERT_TRUE(tables_.contains(name)) << name;
    EXPECT_EQ(sum(tables_[name]), 0) << name;
  }
  EXPECT_EQ(tables_.size(), 5u);
}

TEST_P(AcpiTables, FadtDescribesTheFixedHardware) {
  auto fadt = as<Fadt>("FACP");
  EXPECT_EQ(value(fadt.header.revision), 6);
  EXPECT_EQ(value(fadt.sci_interrupt), layout::kGsiSci);
  EXPECT_EQ(value(fadt.smi_command), 0u) << "always in ACPI mode";
  EXPECT_EQ(value(fadt.pm1a_event), layout::kPortPm1Event);
  EXPECT_EQ(value(fadt.x_pm1a_event.address), layout::kPortPm1Event);
  EXPECT_EQ(value(fadt.x_pm1a_control.address), layout::kPortPm1Control);
  EXPECT_EQ(value(fadt.x_pm_timer.address), layout::kPortPmTimer);
  EXPECT_EQ(value(fadt.reset_register.address), layout::kPortReset);
  EXPECT_EQ(value(fadt.reset_register.space), GenericAddress::kIo);
  EXPECT_EQ(value(fadt.reset_value), layout::kResetValue);
  EXPECT_EQ(value(fadt.flags) >> 10 & 1, 1u) << "there is a reset register";
  EXPECT_EQ(value(fadt.flags) >> 4 & 1, 0u) << "the power button is fixed hardware";
  EXPECT_EQ(value(fadt.flags) >> 20 & 1, 0u) << "not hardware-reduced";
  EXPECT_EQ(fadt.boot_architecture & 1 << 1, 0) << "no keyboard to look for";

  EXPECT_EQ(value(fadt.facs) % 64, 0u);
  EXPECT_EQ(value(fadt.x_facs), 0u) << "only one of the two may be given";
  auto facs = *memory_->load<Facs>(Gpa{fadt.facs});
  EXPECT_EQ(std::string(facs.signature.data(), 4), "FACS");
  EXPECT_EQ(value(facs.length), 64u);
}

TEST_P(AcpiTables, MadtListsCpusAndInterrupts) {
  const Bytes& madt = tables_["APIC"];
  EXPECT_EQ(value(as<Madt>("APIC").local_apic), layout::kLocalApic.value);
  uint32_t cpus = 0, io_apics = 0, overrides = 0, nmis = 0;
  for (size_t at = sizeof(Madt); at < madt.size(); at += madt[at + 1]) {
    ASSERT_LE(at + 2, madt.size());
    ASSERT_GE(madt[at + 1], 2);
    ASSERT_LE(at + madt[at + 1], madt.size());
    const uint8_t* entry = &madt[at];
    switch (madt[at]) {
      case 0:
        EXPECT_EQ(entry[2], cpus) << "uid";
        EXPECT_EQ(entry[3], cpus) << "APIC id";
        EXPECT_EQ(entry[4], 1) << "enabled";
        cpus++;
        break;
      case 1:
        EXPECT_EQ(base::load_le<uint32_t>(madt, at + 4), layout::kIoApic.value);
        EXPECT_EQ(base::load_le<uint32_t>(madt, at + 8), 0u);
        io_apics++;
        break;
      case 2:
        EXPECT_EQ(entry[3], layout::kGsiSci);
        EXPECT_EQ(base::load_le<uint32_t>(madt, at + 4), layout::kGsiSci);
        EXPECT_EQ(base::load_le<uint16_t>(madt, at + 8), 0x0D) << "active high, level";
        overrides++;
        break;
      case 4:
        EXPECT_EQ(entry[2], 0xFF) << "all CPUs";
        EXPECT_EQ(entry[5], 1) << "LINT1";
        nmis++;
        break;
      default:
        ADD_FAILURE() << "entry of type " << int{madt[at]};
    }
  }
  EXPECT_EQ(cpus, GetParam());
  EXPECT_EQ(io_apics, 1u);
  EXPECT_EQ(overrides, 1u);
  EXPECT_EQ(nmis, 1u);
}

TEST_P(AcpiTables, McfgCoversTheEcamWindow) {
  auto mcfg = as<Mcfg>("MCFG");
  EXPECT_EQ(value(mcfg.base), layout::kPciEcam.value);
  EXPECT_EQ(value(mcfg.first_bus), 0);
  EXPECT_EQ((mcfg.last_bus + 1) * layout::kMiB, layout::kPciEcamSize);
}

// The reference compiler reads each table, and gives the same bytes when it compiles what it read.
class Iasl : public AcpiTables {
 protected:
  void SetUp() override {
    if (std::system("iasl -v >/dev/null 2>&1") != 0) {
      GTEST_SKIP() << "iasl is not installed (Debian package acpica-tools)";
    }
    AcpiTables::SetUp();
    std::string pattern = std::filesystem::temp_directory_path() / "acpi-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
  }
  void TearDown() override {
    if (!directory_.empty()) std::filesystem::remove_all(directory_);
  }

  // What iasl prints; it must succeed.
  std::string iasl(const std::string& arguments) {
    std::string command = "cd '" + directory_.string() + "' && iasl " + arguments + " 2>&1";
    FILE* pipe = popen(command.c_str(), "r");
    std::string output;
    std::array<char, 4096> buffer;
    while (size_t n = fread(buffer.data(), 1, buffer.size(), pipe)) output.append(buffer.data(), n);
    EXPECT_EQ(pclose(pipe), 0) << command << "\n" << output;
    return output;
  }
  std::string disassemble(const std::string& name) {
    const Bytes& table = tables_[name];
    std::ofstream(directory_ / (name + ".dat"), std::ios::binary)
        .write(reinterpret_cast<const char*>(table.data()),
               static_cast<std::streamsize>(table.size()));
    std::string output = iasl("-d " + name + ".dat");
    for (const char* complaint :
         {"Error", "Warning", "rror:", "Could not", "Invalid", "incorrect"}) {
      EXPECT_EQ(output.find(complaint), std::string::npos) << output;
    }
    std::ifstream source(directory_ / (name + ".dsl"));
    return {std::istreambuf_iterator<char>(source), {}};
  }
  Bytes recompile(const std::string& name) {
    std::string output = iasl("-on -p again " + name + ".dsl");
    EXPECT_NE(output.find("Compilation successful. 0 Errors, 0 Warnings"), std::string::npos)
        << output;
    std::ifstream file(directory_ / "again.aml", std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }

  std::filesystem::path directory_;
};

TEST_P(Iasl, ReadsEachTableAndCompilesItToTheSame) {
  for (const auto& [name, table] : tables_) {
    SCOPED_TRACE(name);
    std::string source = disassemble(name);
    EXPECT_EQ(source.find("Unknown"), std::string::npos) << source;
    Bytes again = recompile(name);
    ASSERT_EQ(again.size(), table.size());
    for (size_t i = 0; i < table.size(); i++) {
      bool compilers_name = i >= offsetof(TableHeader, creator_id) && i < sizeof(TableHeader);
      if (compilers_name || i == offsetof(TableHeader, checksum)) continue;
      EXPECT_EQ(again[i], table[i]) << "at " << i;
    }
  }
}

TEST_P(Iasl, SeesTheDevices) {
  std::string source = disassemble("DSDT");
  for (const char* text : {
           "Device (PCI0)",
           "EisaId (\"PNP0A08\")",
           "Method (_OSC, 4, Serialized)",
           "ToUUID (\"33db4d5b-1ff7-401c-9657-7441c03dd766\")",
           "EisaId (\"PNP0C02\")",
           "EisaId (\"PNP0501\")",
           "EisaId (\"PNP0B00\")",
           "\"QEMU0001\"",
           "Name (\\_S5, Package (0x04)",
           "Device (C000)",
           "\"VM_Gen_Counter\"",
           "Scope (\\_GPE)",
           "Method (_E00, 0, Serialized)",
           "Notify (\\_SB.VGEN, 0x80)",
       }) {
    EXPECT_NE(source.find(text), std::string::npos) << text << "\n" << source;
  }
  size_t processors = 0;
  for (size_t at = 0; (at = source.find("\"ACPI0007\"", at)) != std::string::npos; at++) {
    processors++;
  }
  EXPECT_EQ(processors, GetParam());
}

INSTANTIATE_TEST_SUITE_P(Cpus, AcpiTables, testing::Values(1, 2, layout::kMaxCpus));
INSTANTIATE_TEST_SUITE_P(Cpus, Iasl, testing::Values(1, layout::kMaxCpus));

TEST(GenerationId, LiesOutsideTheTablesAndIsAnotherEachTime) {
  auto memory = std::move(*GuestMemory::create(64 * layout::kMiB));
  ASSERT_TRUE(write_tables(*memory, {.cpus = layout::kMaxCpus}));
  using Id = std::array<uint8_t, 16>;
  Id first = *memory->load<Id>(layout::kGenerationId);
  EXPECT_NE(first, Id{});
  EXPECT_EQ(*memory->load<Id>(layout::kGenerationId + 16), Id{});
  std::vector<uint64_t> marks(64 * layout::kMiB / kPageSize / 64);
  memory->take_dirty(0, marks);
  ASSERT_TRUE(write_generation_id(*memory));
  EXPECT_NE(*memory->load<Id>(layout::kGenerationId), first);
  EXPECT_TRUE(memory->is_dirty(layout::kGenerationId.gfn()));
}

TEST(AcpiTablesLimits, RefuseWrongNumbersOfCpus) {
  auto memory = std::move(*GuestMemory::create(64 * layout::kMiB));
  EXPECT_FALSE(write_tables(*memory, {.cpus = 0}));
  EXPECT_FALSE(write_tables(*memory, {.cpus = layout::kMaxCpus + 1}));
}

}  // namespace
}  // namespace vmm::acpi
