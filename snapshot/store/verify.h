// Reads everything of snapshots, in parallel and past the page cache, and checks it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "snapshot/progress.h"
#include "snapshot/types.h"

namespace snapshot {

class Store;

struct Damage {
  std::string file;           // relative to the store
  uint64_t offset = 0;        // bytes; 0 where the whole file is meant
  std::string what;           // one line, for a person; names the page where there is one
  std::vector<Id> snapshots;  // that use the file
};

struct VerifyReport {
  size_t snapshots = 0;
  uint64_t pages = 0;  // stored ones that were read
  uint64_t bytes = 0;
  std::vector<Damage> damages;  // the first kMaxDamages
  uint64_t damage_count = 0;

  bool good() const { return damage_count == 0; }
};
inline constexpr size_t kMaxDamages = 1000;

// Those of `ids`, or all where it is empty.
base::Result<VerifyReport> verify_store(Store& store, const std::vector<Id>& ids,
                                        const Progress& progress);

}  // namespace snapshot
