#include "snapshot/page_counts.h"

#include <algorithm>
#include <map>
#include <unordered_map>
#include <vector>

namespace snapshot {

base::Result<PageCounts> count_pages(const Snapshot& snapshot, Space space,
                                     const Progress& progress) {
  constexpr uint64_t kPiece = 4096;
  PageCounts counts;
  std::unordered_map<Slot, uint64_t> by_slot;
  std::vector<PageEntry> entries;
  uint64_t pages = snapshot.pages(space);
  for (uint64_t first = 0; first < pages; first += kPiece) {
    TRY(report(progress, first * kPageBytes, pages * kPageBytes));
    entries.assign(std::min(kPiece, pages - first), {});
    TRY(snapshot.find_range(space, first, entries));
    for (const PageEntry& entry : entries) {
      if (entry.slot == kSlotZero) {
        ++counts.zero;
      } else if (entry.slot == kSlotBase) {
        ++counts.base;
      } else {
        ++counts.data;
        ++by_slot[entry.slot];
      }
    }
  }
  // Several slots may be one file: each index run numbers the files anew.
  std::map<std::string, uint64_t> by_name;
  for (const auto& [slot, count] : by_slot) {
    TRY_ASSIGN(auto file, snapshot.file(slot));
    by_name[file->name()] += count;
  }
  for (const auto& [name, count] : by_name) counts.files.push_back({name, count});
  return counts;
}

}  // namespace snapshot
