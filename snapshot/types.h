// The words every part of the snapshot engine uses: ids, page spaces, and where a page is.
#pragma once

#include <compare>
#include <cstdint>
#include <string>
#include <string_view>

#include "vmm/base/result.h"

namespace snapshot {

// The name of a snapshot, pack, run, layer or branch: 128 random bits, 32 hexadecimal digits.
struct Id {
  uint64_t high = 0, low = 0;

  static base::Result<Id> random();
  static base::Result<Id> parse(std::string_view text);
  std::string text() const;
  auto operator<=>(const Id&) const = default;
};

inline constexpr uint64_t kPageBytes = 4096;

// A page space: one numbering of 4 KiB pages. RAM pages are numbered without the hole below 4 GiB
// (vmm::GuestMemory::ram_page()), those of a disk by their offset.
using Space = uint32_t;
inline constexpr Space kRamSpace = 0;
inline constexpr Space disk_space(uint32_t disk) { return disk + 1; }

// XXH3-64 of a page, seeded per store.
using PageHash = uint64_t;

// Where the content of a page is: nowhere because it is zero, in the disk's base image at its own
// offset, or in a file of the store. `slot` numbers the files of the snapshot (or commit) at hand.
using Slot = uint32_t;
inline constexpr Slot kSlotZero = 0xFFFF'FFFF;
inline constexpr Slot kSlotBase = 0xFFFF'FFFE;

struct PageEntry {
  uint64_t page = 0;
  PageHash hash = 0;  // 0 for zero and base pages
  Slot slot = kSlotZero;
  uint64_t offset = 0;  // bytes, in the slot's file
};

}  // namespace snapshot
