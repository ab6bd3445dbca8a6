#include "vmm/boot/cpu_tables.h"

#include <gtest/gtest.h>

#include "vmm/layout.h"

namespace vmm::boot {
namespace {

std::unique_ptr<GuestMemory> guest() { return *GuestMemory::create(layout::kMiB); }

// What a CPU makes of a GDT entry, for comparing with the hidden part that KVM is given.
struct Descriptor {
  uint64_t base, limit;
  unsigned type, s, dpl, present, l, db, g;
};

Descriptor read_descriptor(const GuestMemory& memory, uint16_t selector) {
  uint64_t raw = *memory.load<uint64_t>(layout::kGdt + selector);
  auto bits = [&](int low, int count) { return raw >> low & ((1ull << count) - 1); };
  auto flag = [&](int bit) { return static_cast<unsigned>(bits(bit, 1)); };
  Descriptor descriptor{.base = bits(16, 24) | bits(56, 8) << 24,
                        .limit = bits(0, 16) | bits(48, 4) << 16,
                        .type = static_cast<unsigned>(bits(40, 4)),
                        .s = flag(44),
                        .dpl = static_cast<unsigned>(bits(45, 2)),
                        .present = flag(47),
                        .l = flag(53),
                        .db = flag(54),
                        .g = flag(55)};
  if (descriptor.g) descriptor.limit = descriptor.limit << 12 | 0xFFF;
  return descriptor;
}

void expect_same(const kvm_segment& segment, const GuestMemory& memory) {
  Descriptor descriptor = read_descriptor(memory, segment.selector);
  EXPECT_EQ(segment.base, descriptor.base);
  EXPECT_EQ(segment.limit, descriptor.limit);
  EXPECT_EQ(segment.type, descriptor.type);
  EXPECT_EQ(segment.s, descriptor.s);
  EXPECT_EQ(segment.dpl, descriptor.dpl);
  EXPECT_EQ(segment.present, descriptor.present);
  EXPECT_EQ(segment.l, descriptor.l);
  EXPECT_EQ(segment.db, descriptor.db);
  EXPECT_EQ(segment.g, descriptor.g);
}

class EntryMode : public testing::TestWithParam<Entry::Mode> {};

TEST_P(EntryMode, SegmentRegistersAreWhatTheGdtSays) {
  auto memory = guest();
  ASSERT_TRUE(write_cpu_tables(*memory, GetParam()));
  kvm_regs regs{};
  kvm_sregs sregs{};
  set_entry_registers({GetParam(), Gpa{0x100'0000}, layout::kZeroPage}, regs, sregs);
  EXPECT_EQ(sregs.cs.selector, 0x10);
  EXPECT_EQ(sregs.ss.selector, 0x18);
  for (const kvm_segment& segment :
       {sregs.cs, sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss, sregs.tr})
    expect_same(segment, *memory);
  EXPECT_EQ(sregs.gdt.base, layout::kGdt.value);
  EXPECT_EQ(sregs.gdt.limit, 47);
  EXPECT_EQ(*memory->load<uint64_t>(layout::kGdt), 0u) << "null descriptor";
}

TEST_P(EntryMode, GeneralRegistersAreClearAndInterruptsAreOff) {
  kvm_regs regs{};
  regs.rax = regs.r15 = 77;
  regs.rflags = 0x246;
  kvm_sregs sregs{};
  sregs.apic_base = 0xFEE0'0900;
  set_entry_registers({GetParam(), Gpa{0x100'0000}, layout::kZeroPage}, regs, sregs);
  EXPECT_EQ(regs.rip, 0x100'0000u);
  EXPECT_EQ(regs.rflags, 2u);
  EXPECT_EQ(regs.rax, 0u);
  EXPECT_EQ(regs.r15, 0u);
  EXPECT_EQ(sregs.apic_base, 0xFEE0'0900u) << "not ours to change";
}

INSTANTIATE_TEST_SUITE_P(Boot, EntryMode,
                         testing::Values(Entry::Mode::kLong64, Entry::Mode::kProtected32));

TEST(EntryRegisters, LongModeHasPagingAndBootParams) {
  kvm_regs regs{};
  kvm_sregs sregs{};
  set_entry_registers({Entry::Mode::kLong64, Gpa{0x100'0000}, layout::kZeroPage}, regs, sregs);
  EXPECT_EQ(regs.rsi, layout::kZeroPage.value);
  EXPECT_EQ(regs.rbx, 0u);
  EXPECT_EQ(sregs.cr0, 0x8000'0011u);
  EXPECT_EQ(sregs.cr3, layout::kPageTables.value);
  EXPECT_EQ(sregs.cr4, 0x20u);
  EXPECT_EQ(sregs.efer, 0x500u);
  EXPECT_EQ(sregs.cs.l, 1);
  EXPECT_EQ(sregs.cs.db, 0);
}

TEST(EntryRegisters, PvhHasFlatSegmentsAndStartInfo) {
  kvm_regs regs{};
  kvm_sregs sregs{};
  sregs.efer = 0x500;
  sregs.cr4 = 0x20;
  set_entry_registers({Entry::Mode::kProtected32, Gpa{0x10'0040}, layout::kPvhStartInfo}, regs,
                      sregs);
  EXPECT_EQ(regs.rbx, layout::kPvhStartInfo.value);
  EXPECT_EQ(regs.rsi, 0u);
  EXPECT_EQ(sregs.cr0, 0x11u);
  EXPECT_EQ(sregs.cr4, 0u);
  EXPECT_EQ(sregs.efer, 0u);
  EXPECT_EQ(sregs.cs.l, 0);
  EXPECT_EQ(sregs.cs.db, 1);
  EXPECT_EQ(sregs.cs.limit, 0xFFFF'FFFFu);
  EXPECT_EQ(sregs.tr.limit, 0x67u);
}

// Walks the tables as the CPU does; 0 where nothing is mapped.
uint64_t translate(const GuestMemory& memory, uint64_t address) {
  constexpr uint64_t kAddressMask = 0x000F'FFFF'FFFF'F000;
  constexpr uint64_t kPresentWritable = 3;
  uint64_t table = layout::kPageTables.value;
  for (int shift : {39, 30, 21}) {
    auto entry = *memory.load<uint64_t>(Gpa{table + (address >> shift & 511) * 8});
    if ((entry & kPresentWritable) != kPresentWritable) return 0;
    bool large = (entry >> 7 & 1) != 0;
    if (shift == 21) return large ? (entry & kAddressMask) + (address & 0x1F'FFFF) : 0;
    if (large) return 0;
    table = entry & kAddressMask;
  }
  return 0;
}

TEST(PageTables, MapTheFirstFourGiBOntoThemselves) {
  auto memory = guest();
  ASSERT_TRUE(write_cpu_tables(*memory, Entry::Mode::kLong64));
  for (uint64_t address = 0x1000; address < 4 * layout::kGiB; address += 2 * layout::kMiB)
    ASSERT_EQ(translate(*memory, address), address);
  EXPECT_EQ(translate(*memory, 4 * layout::kGiB - 1), 4 * layout::kGiB - 1);
  EXPECT_EQ(translate(*memory, 4 * layout::kGiB), 0u);
  EXPECT_EQ(translate(*memory, 512 * layout::kGiB), 0u);
}

TEST(PageTables, AreNotWrittenForPvh) {
  auto memory = guest();
  ASSERT_TRUE(write_cpu_tables(*memory, Entry::Mode::kProtected32));
  EXPECT_FALSE(memory->is_dirty(layout::kPageTables.gfn()));
}

}  // namespace
}  // namespace vmm::boot
