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
  // Keep the newest so many of each branch; nothing goes by this rule where it is not given.
  std::optional<size_t> keep;
  // Remove these in particular.
  std::vector<Id> remove;
  // Never remove these.
  std::vector<Id> keep_ids;
};

struct PruneReport {
  std::vector<Id> removed;
  std::vector<Id> in_use;  // were to go, but a machine continues them or reads them
  uint64_t freed_bytes = 0;
};

// What a recovery or a prune found that nothing names any more.
struct Garbage {
  uint64_t files = 0, bytes = 0;
};

base::Result<PruneReport> prune_store(Store& store, const PruneOptions& options);

// Removes what a machine or command that was killed left behind: temporary files and files that no
// manifest or HEAD names, except those of branches that live. Takes the store's lock. Removes
// nothing where a manifest is damaged: what it names cannot be known.
base::Result<Garbage> recover_store(Store& store);

}  // namespace snapshot
