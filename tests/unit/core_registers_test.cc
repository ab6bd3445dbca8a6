#include "snapshot/core_registers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "vmm/vcpu_state.h"

namespace snapshot {
namespace {

vmm::VcpuState state_of(uint64_t rip) {
  vmm::VcpuState state;
  state.xsave.resize(4096);
  state.regs.rip = rip;
  state.sregs.cr3 = 0x2a0a000;
  state.msrs = vmm::MsrTable(std::vector<uint32_t>{0xC000'0081, 0xC000'0102});
  state.msrs.entries()[0].data = 1;
  state.msrs.entries()[1].data = 0x7f00'0000'0000;
  return state;
}

base::SectionReader read_back(const base::SectionWriter& writer) {
  std::vector<base::SectionReader::Section> sections;
  for (size_t i = 0; i < writer.count(); ++i) {
    auto data = writer.data(i);
    sections.push_back({std::string(writer.tag(i)), writer.version(i), {data.begin(), data.end()}});
  }
  return base::SectionReader(std::move(sections));
}

TEST(CoreRegistersTest, AreThoseOfEachVcpu) {
  base::SectionWriter writer;
  writer.begin("clock", 1).u64(1);
  for (uint64_t i = 0; i < 3; ++i) {
    state_of(0x1000 + i).encode(writer.begin("vcpu" + std::to_string(i), vmm::kVcpuSectionVersion));
  }
  base::SectionReader sections = read_back(writer);
  auto cpus = core_registers(sections);
  ASSERT_TRUE(cpus) << cpus.error().text();
  ASSERT_EQ(cpus->size(), 3u);
  for (uint64_t i = 0; i < 3; ++i) {
    EXPECT_EQ((*cpus)[i].regs.rip, 0x1000 + i);
    EXPECT_EQ((*cpus)[i].sregs.cr3, 0x2a0a000u);
    EXPECT_EQ((*cpus)[i].kernel_gs_base, 0x7f00'0000'0000u);
  }
}

TEST(CoreRegistersTest, NoVcpuAndADamagedOneAreErrors) {
  base::SectionWriter writer;
  base::SectionReader none = read_back(writer);
  EXPECT_THAT(core_registers(none).error().text(), testing::HasSubstr("no vCPU"));
  writer.begin("vcpu0", vmm::kVcpuSectionVersion).u64(1);
  base::SectionReader cut = read_back(writer);
  EXPECT_THAT(core_registers(cut).error().text(), testing::HasSubstr("vcpu0"));
  writer.clear();
  writer.begin("vcpu0", vmm::kVcpuSectionVersion + 1).u64(1);
  base::SectionReader newer = read_back(writer);
  EXPECT_THAT(core_registers(newer).error().text(), testing::HasSubstr("version"));
}

}  // namespace
}  // namespace snapshot
