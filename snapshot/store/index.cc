#include "snapshot/store/index.h"

#include <fmt/format.h>

#include <cassert>
#include <map>

namespace snapshot {

namespace {
constexpr uint64_t kMergeWindow = 64 << 10;  // pages merged at a time
constexpr size_t kRunsLeft = 8;              // after a list that came close to kMaxRuns was cut
}  // namespace

SpaceIndex::SpaceIndex(Storage& storage, const Format& format, const SpaceInfo& info,
                       Slot first_slot, Slot unwritten)
    : info_(info), first_slot_(first_slot), end_slot_(first_slot), unwritten_(unwritten) {
  for (const RunInfo& run : info.runs) {
    runs_.push_back(std::make_unique<RunReader>(storage, format, info.space, run));
    run_slot_.push_back(end_slot_);
    end_slot_ += run.slots;
  }
}

void SpaceIndex::announce() const {
  std::call_once(announced_, [this] {
    for (const auto& run : runs_) run->will_find();
  });
}

base::Result<PageEntry> SpaceIndex::find(uint64_t page) const {
  for (size_t i = 0; i < runs_.size(); ++i) {
    if (i == 1) announce();
    TRY_ASSIGN(auto entry, runs_[i]->find(page));
    if (!entry) continue;
    if (entry->slot < kSlotBase) entry->slot += run_slot_[i];
    return *entry;
  }
  return PageEntry{page, 0, unwritten_, 0};
}

base::Result<void> SpaceIndex::find_range(uint64_t first, std::span<PageEntry> into) const {
  announce();
  for (size_t i = 0; i < into.size(); ++i) into[i] = {first + i, 0, unwritten_, 0};
  // Oldest first, so that the newest is what stays.
  for (size_t i = runs_.size(); i-- > 0;) {
    const Slot slot = run_slot_[i];
    TRY(runs_[i]->for_each(first, first + into.size(), [&](PageEntry entry) {
      if (entry.slot < kSlotBase) entry.slot += slot;
      into[entry.page - first] = entry;
    }));
  }
  return {};
}

base::Result<SlotInfo> SpaceIndex::slot(Slot slot) const {
  assert(slot >= first_slot_ && slot < end_slot_);
  size_t i = runs_.size() - 1;
  while (run_slot_[i] > slot) --i;
  TRY_ASSIGN(auto slots, runs_[i]->slots());
  return slots[slot - run_slot_[i]];
}

bool flat_is_better(uint64_t entries, uint64_t pages) {
  return entries * kDeltaRecordBytes > pages * kFlatRecordBytes / 2;
}

size_t runs_to_merge(std::span<const RunInfo> runs) {
  if (runs.empty()) return 0;
  auto is_flat = [](const RunInfo& run) { return run.kind == RunInfo::Kind::kFlat; };
  size_t count = 1;
  uint64_t bytes = runs[0].bytes;
  while (count < runs.size() && !is_flat(runs[count]) && runs[count].bytes <= bytes) {
    bytes += runs[count++].bytes;
  }
  if (runs.size() - count + 1 > kMaxRuns - 2) count = runs.size() - kRunsLeft + 1;
  if (count + 1 == runs.size() && is_flat(runs[count]) && bytes > runs[count].bytes / 2) ++count;
  return count > 1 ? count : 0;
}

base::Result<RunInfo> merge_runs(const Format& format, const SpaceIndex& index, size_t count,
                                 File& file, const Id& id, Slot unwritten) {
  const auto& runs = index.runs();
  uint64_t entries = 0;
  uint64_t slots_at_most = 0;
  for (size_t i = 0; i < count; ++i) {
    entries += runs[i]->info().entries;
    slots_at_most += runs[i]->info().slots;
  }
  if (slots_at_most > kMaxSlots) return base::fail("too many files for an index run");
  const bool whole = count == runs.size();
  const bool flat = whole && (runs.back()->info().kind == RunInfo::Kind::kFlat ||
                              flat_is_better(entries, index.pages()));

  RunWriter writer(format, file, id, index.space(),
                   flat ? RunInfo::Kind::kFlat : RunInfo::Kind::kDelta,
                   static_cast<uint32_t>(slots_at_most));
  // Only files that are still used are named by the result.
  std::vector<SlotInfo> slots;
  std::map<SlotInfo, Slot> slot_numbers;
  struct Found {
    PageEntry entry;
    size_t run = 0;
    bool there = false;
  };
  std::vector<Found> window;
  std::vector<std::span<const SlotInfo>> sources;
  bool any = false;
  for (size_t i = 0; i < count; ++i) {
    TRY_ASSIGN(auto source, runs[i]->slots());
    sources.push_back(source);
  }
  for (uint64_t first = 0; first < index.pages(); first += kMergeWindow) {
    const uint64_t end = std::min(first + kMergeWindow, index.pages());
    window.assign(end - first, {});
    for (size_t i = count; i-- > 0;) {
      TRY(runs[i]->for_each(first, end, [&](const PageEntry& entry) {
        window[entry.page - first] = {entry, i, true};
      }));
    }
    for (uint64_t page = first; page < end; ++page) {
      Found& found = window[page - first];
      if (!found.there) {
        if (flat) TRY(writer.add({page, 0, unwritten, 0}));
        continue;
      }
      if (found.entry.slot < kSlotBase) {
        const SlotInfo& source = sources[found.run][found.entry.slot];
        auto [place, is_new] = slot_numbers.emplace(source, static_cast<Slot>(slots.size()));
        if (is_new) slots.push_back(source);
        found.entry.slot = place->second;
      }
      TRY(writer.add(found.entry));
      any = true;
    }
  }
  // A store from elsewhere: its indexes have nothing but pages beyond the space.
  if (!any && !flat) {
    return base::fail(fmt::format("{} is damaged: no page of it is in the snapshot",
                                  run_name(runs.front()->info().id)));
  }
  return writer.finish(slots);
}

}  // namespace snapshot
