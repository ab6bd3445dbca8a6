// What nobody names any more: found and removed. A machine or a command that was killed leaves
// files behind; a prune leaves those that only the removed snapshots used.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "snapshot/store/head.h"
#include "snapshot/store/run.h"
#include "snapshot/types.h"

namespace snapshot {

class Store;

struct Garbage {
  uint64_t files = 0, bytes = 0;
};

// What the store's manifests and HEADs name.
struct References {
  // Fails where one cannot be read: what it names cannot be known. With the store's exclusive lock.
  static base::Result<References> collect(Store& store);
  void add(const Head& head);

  std::set<std::string> files;  // packs, runs, layers and their logs, by name
  std::set<uint64_t> living;    // first halves of the ids of branches whose machine runs
  std::set<Id> abandoned;       // branches whose machine is gone and left no layers
  // Each run once.
  std::map<Id, std::pair<Space, std::shared_ptr<RunReader>>> runs;
};

// Makes what manifests and HEADs there are durable. A commit, a HEAD or a removal whose last fsync
// failed may have left a name that is there now and would not be after a power cut, or the other
// way round; before that is settled nothing goes that such a name could need.
base::Result<void> settle_names(Storage& storage);

// Removes files that nothing names and nobody who lives may be writing: of a machine that runs,
// only what was `committed` once. With the store's exclusive lock, and what was collected under it.
// `settled`: nothing has changed since names were made durable.
base::Result<Garbage> remove_unnamed(Store& store, const References& references, bool settled,
                                     const std::set<std::string>& committed = {});

// Takes the store's lock and does both. Removes nothing where a manifest is damaged.
base::Result<Garbage> recover_store(Store& store);
// The same where the lock is free now; false where it is not.
base::Result<bool> try_recover_store(Store& store);

}  // namespace snapshot
