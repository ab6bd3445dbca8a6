#include "snapshot/diff.h"

#include <algorithm>

namespace snapshot {
namespace {

using base::Result;

constexpr uint64_t kPiecePages = 4096;

// `same_base`: what is in the base image of both is the same.
bool same(const PageEntry& before, const PageEntry& after, bool same_base) {
  auto reserved = [](Slot slot) { return slot == kSlotZero || slot == kSlotBase; };
  if (before.slot == kSlotBase && after.slot == kSlotBase) return same_base;
  if (reserved(before.slot) || reserved(after.slot)) return before.slot == after.slot;
  return before.hash == after.hash;
}

// Of a disk; RAM has none.
std::string base_of(const Snapshot& snapshot, Space space) {
  const auto& disks = snapshot.manifest().disks;
  return space == kRamSpace || space - 1 >= disks.size() ? "" : disks[space - 1].base;
}

void add_page(std::vector<PageRange>& ranges, uint64_t page) {
  if (!ranges.empty() && ranges.back().first + ranges.back().count == page) {
    ++ranges.back().count;
  } else {
    ranges.push_back({page, 1});
  }
}

// What is beyond the end of a space reads as zero.
Result<void> find(const Snapshot& snapshot, Space space, uint64_t pages, uint64_t first,
                  std::span<PageEntry> into) {
  std::ranges::fill(into, PageEntry{});
  if (first >= pages) return {};
  return snapshot.find_range(space, first,
                             into.first(std::min<uint64_t>(into.size(), pages - first)));
}

Result<SpaceDifference> diff_space(const Snapshot& before, const Snapshot& after, Space space,
                                   const Progress& progress, uint64_t& done, uint64_t total) {
  SpaceDifference found{.space = space,
                        .pages_before = before.pages(space),
                        .pages_after = after.pages(space),
                        .ranges = {}};
  bool same_base = base_of(before, space) == base_of(after, space);
  std::vector<PageEntry> old_entries(kPiecePages), new_entries(kPiecePages);
  uint64_t pages = std::max(found.pages_before, found.pages_after);
  uint64_t count = 0;
  for (uint64_t first = 0; first < pages; first += count) {
    count = std::min(kPiecePages, pages - first);
    TRY(report(progress, done, total));
    TRY(find(before, space, found.pages_before, first, std::span(old_entries).first(count)));
    TRY(find(after, space, found.pages_after, first, std::span(new_entries).first(count)));
    for (uint64_t i = 0; i < count; ++i) {
      if (same(old_entries[i], new_entries[i], same_base)) continue;
      if (old_entries[i].slot == kSlotZero) {
        ++found.appeared;
      } else if (new_entries[i].slot == kSlotZero) {
        ++found.vanished;
      } else {
        ++found.changed;
      }
      add_page(found.ranges, first + i);
    }
    done += count * kPageBytes;
  }
  return found;
}

}  // namespace

Result<std::vector<SpaceDifference>> diff(const Snapshot& before, const Snapshot& after,
                                          const Progress& progress) {
  std::vector<Space> spaces = before.spaces();
  for (Space space : after.spaces()) spaces.push_back(space);
  std::ranges::sort(spaces);
  auto [first, last] = std::ranges::unique(spaces);
  spaces.erase(first, last);
  uint64_t total = 0, done = 0;
  for (Space space : spaces)
    total += std::max(before.pages(space), after.pages(space)) * kPageBytes;
  std::vector<SpaceDifference> differences;
  for (Space space : spaces) {
    TRY_ASSIGN(SpaceDifference found, diff_space(before, after, space, progress, done, total));
    differences.push_back(std::move(found));
  }
  return differences;
}

}  // namespace snapshot
