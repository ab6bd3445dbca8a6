// Removal of snapshots, and of what only they used: whole files are unlinked, large dead parts of
// packs punched out. Under the store's lock; live machines and restores in progress keep theirs.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "snapshot/types.h"

namespace snapshot {

class Store;

struct PruneOptions {
  // Keep the newest so many of each branch, or of `branch` alone; nothing goes by this rule where
  // it is not given.
  std::optional<size_t> keep;
  std::optional<Id> branch = {};
  // Remove these in particular.
  std::vector<Id> remove;
  // Never remove these.
  std::vector<Id> keep_ids;
  // As if these branches were not there (Store::remove_head() forgets them).
  std::vector<Id> forgotten = {};
  // Remove nothing: the report says what would go, and how much it would free at most.
  bool dry_run = false;
};

struct PruneReport {
  std::vector<Id> removed;
  std::vector<Id> in_use;  // were to go, but a machine continues them or reads them
  uint64_t freed_bytes = 0;
};

base::Result<PruneReport> prune_store(Store& store, const PruneOptions& options);

}  // namespace snapshot
