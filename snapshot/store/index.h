// Where the pages of one space of a snapshot are: its runs, newest first, at most kMaxRuns; the
// first one that has a page decides. And the policy by which runs are merged.
//
// Owned by a Snapshot; any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "snapshot/store/manifest.h"
#include "snapshot/store/run.h"

namespace snapshot {

class SpaceIndex {
 public:
  // `first_slot`: the number in the snapshot of the first slot of the newest run; the others
  // follow. `unwritten`: where pages are that no run has.
  SpaceIndex(Storage& storage, const Format& format, const SpaceInfo& info, Slot first_slot,
             Slot unwritten);

  Space space() const { return info_.space; }
  uint64_t pages() const { return info_.pages; }
  Slot first_slot() const { return first_slot_; }
  Slot end_slot() const { return end_slot_; }
  const std::vector<std::unique_ptr<RunReader>>& runs() const { return runs_; }

  base::Result<PageEntry> find(uint64_t page) const;
  base::Result<void> find_range(uint64_t first, std::span<PageEntry> into) const;
  // Of a slot in [first_slot(), end_slot()).
  base::Result<SlotInfo> slot(Slot slot) const;

 private:
  // Once: asks the disk for the root block of every run at once. A page that only the oldest has
  // needs them all, one after the other.
  void announce() const;

  SpaceInfo info_;
  Slot first_slot_, end_slot_, unwritten_;
  std::vector<std::unique_ptr<RunReader>> runs_;
  std::vector<Slot> run_slot_;  // the first slot of each run
  mutable std::once_flag announced_;
};

// How many of the newest runs are to become one: 0 where nothing is due. Runs merge while the next
// older one is not larger than what is merged so far, so that sizes grow geometrically towards the
// oldest; a delta over half a flat run takes that in as well; and a list that comes close to
// kMaxRuns is shortened in any case.
size_t runs_to_merge(std::span<const RunInfo> runs);

// Should `entries` of `pages` be a flat run? (Where nothing older is below them.)
bool flat_is_better(uint64_t entries, uint64_t pages);

// Writes the merge of the newest `count` runs of `index` into `file`.
base::Result<RunInfo> merge_runs(const Format& format, const SpaceIndex& index, size_t count,
                                 File& file, const Id& id, Slot unwritten);

}  // namespace snapshot
