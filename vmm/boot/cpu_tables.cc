#include "vmm/boot/cpu_tables.h"

#include <array>
#include <cstdint>
#include <span>

#include "vmm/layout.h"

namespace vmm::boot {
namespace {

// Selectors that the 64-bit boot protocol asks for; PVH leaves them to the loader.
constexpr uint16_t kCodeSelector = 0x10;
constexpr uint16_t kDataSelector = 0x18;
constexpr uint16_t kTaskSelector = 0x20;
constexpr uint8_t kCodeType = 0xB;  // execute, read, accessed
constexpr uint8_t kDataType = 0x3;  // read, write, accessed
constexpr uint8_t kTaskType = 0xB;  // busy TSS
constexpr uint32_t kTaskLimit = 0x67;

kvm_segment flat_segment(uint16_t selector, uint8_t type, bool code64) {
  kvm_segment segment{};
  segment.limit = 0xFFFF'FFFF;
  segment.selector = selector;
  segment.type = type;
  segment.present = 1;
  segment.db = code64 ? 0 : 1;
  segment.s = 1;
  segment.l = code64 ? 1 : 0;
  segment.g = 1;
  return segment;
}

kvm_segment code_segment(Entry::Mode mode) {
  return flat_segment(kCodeSelector, kCodeType, mode == Entry::Mode::kLong64);
}

kvm_segment data_segment() { return flat_segment(kDataSelector, kDataType, false); }

kvm_segment task_segment() {
  kvm_segment segment{};
  segment.limit = kTaskLimit;
  segment.selector = kTaskSelector;
  segment.type = kTaskType;
  segment.present = 1;
  return segment;
}

// Intel SDM volume 3, 3.4.5, "Segment Descriptors"; base 0.
uint64_t descriptor(const kvm_segment& segment) {
  uint64_t limit = segment.g ? segment.limit >> 12 : segment.limit;
  uint64_t access = segment.type | segment.s << 4 | segment.dpl << 5 | segment.present << 7;
  uint64_t flags = segment.avl | segment.l << 1 | segment.db << 2 | segment.g << 3;
  return (limit & 0xFFFF) | access << 40 | (limit >> 16 & 0xF) << 48 | flags << 52;
}

constexpr size_t kGdtEntries = 6;  // null, unused, code, data, task (two entries in long mode)
constexpr uint64_t kPagePresent = 1 << 0;
constexpr uint64_t kPageWritable = 1 << 1;
constexpr uint64_t kPageLarge = 1 << 7;

base::Result<void> write_page_tables(GuestMemory& memory) {
  constexpr size_t kDirectories = 4;  // of 1 GiB each
  constexpr size_t kEntries = kPageSize / sizeof(uint64_t);
  using Table = std::array<uint64_t, kEntries>;
  std::array<Table, 2 + kDirectories> tables{};
  auto table_at = [](size_t index) {
    return (layout::kPageTables.value + index * kPageSize) | kPagePresent | kPageWritable;
  };
  tables[0][0] = table_at(1);
  for (size_t gib = 0; gib < kDirectories; ++gib) {
    tables[1][gib] = table_at(2 + gib);
    for (size_t i = 0; i < kEntries; ++i)
      tables[2 + gib][i] =
          (gib * layout::kGiB + i * 2 * layout::kMiB) | kPagePresent | kPageWritable | kPageLarge;
  }
  return memory.write(layout::kPageTables, std::as_bytes(std::span(tables)));
}

}  // namespace

base::Result<void> write_cpu_tables(GuestMemory& memory, Entry::Mode mode) {
  std::array<uint64_t, kGdtEntries> gdt{};
  gdt[kCodeSelector / 8] = descriptor(code_segment(mode));
  gdt[kDataSelector / 8] = descriptor(data_segment());
  gdt[kTaskSelector / 8] = descriptor(task_segment());
  TRY(memory.write(layout::kGdt, std::as_bytes(std::span(gdt))));
  if (mode == Entry::Mode::kLong64) TRY(write_page_tables(memory));
  return {};
}

void set_entry_registers(const Entry& entry, kvm_regs& regs, kvm_sregs& sregs) {
  constexpr uint64_t kCr0ProtectionEnable = 1ull << 0;
  constexpr uint64_t kCr0ExtensionType = 1ull << 4;
  constexpr uint64_t kCr0Paging = 1ull << 31;
  constexpr uint64_t kCr4PhysicalAddressExtension = 1ull << 5;
  constexpr uint64_t kEferLongModeEnable = 1ull << 8;
  constexpr uint64_t kEferLongModeActive = 1ull << 10;
  constexpr uint64_t kFlagsReserved = 1ull << 1;  // always 1; interrupts are off

  regs = {};
  regs.rip = entry.rip.value;
  regs.rflags = kFlagsReserved;
  regs.rsp = layout::kBootStack.value;

  sregs.cs = code_segment(entry.mode);
  sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data_segment();
  sregs.tr = task_segment();
  sregs.ldt = {};
  sregs.ldt.unusable = 1;
  sregs.gdt = {.base = layout::kGdt.value, .limit = kGdtEntries * 8 - 1, .padding = {}};
  sregs.idt = {};
  sregs.cr0 = kCr0ProtectionEnable | kCr0ExtensionType;
  sregs.cr3 = 0;
  sregs.cr4 = 0;
  sregs.efer = 0;
  switch (entry.mode) {
    case Entry::Mode::kLong64:
      regs.rsi = entry.boot_data.value;
      sregs.cr0 |= kCr0Paging;
      sregs.cr3 = layout::kPageTables.value;
      sregs.cr4 = kCr4PhysicalAddressExtension;
      sregs.efer = kEferLongModeEnable | kEferLongModeActive;
      break;
    case Entry::Mode::kProtected32:
      regs.rbx = entry.boot_data.value;
      break;
  }
}

}  // namespace vmm::boot
