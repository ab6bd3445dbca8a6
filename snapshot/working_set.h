// Which pages a restored machine touched first, in order: recorded once, next to the snapshot, and
// replayed by the pager at later restores. Advice only: a set that is missing or damaged costs
// time, never correctness, so it is no part of the snapshot and is not synced.
#pragma once

#include <cstdint>
#include <vector>

#include "snapshot/storage.h"
#include "snapshot/types.h"
#include "vmm/base/result.h"

namespace snapshot {

inline constexpr uint64_t kMostWorkingSetPages = 1 << 20;

// Empty where there is none that can be used. Pages are below `ram_pages`, each once.
std::vector<uint64_t> load_working_set(Storage& storage, const Id& snapshot, uint64_t ram_pages);
// Replaces what was recorded before.
base::Result<void> save_working_set(Storage& storage, const Id& snapshot,
                                    const std::vector<uint64_t>& pages);
base::Result<void> remove_working_set(Storage& storage, const Id& snapshot);

}  // namespace snapshot
