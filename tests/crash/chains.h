// The scripts whose crash states are looked at.
#pragma once

#include "tests/crash/script.h"

namespace test {

// A store is made, three snapshots are taken and one of them is pruned.
Recorded commits_and_prune(uint64_t seed);
// Increments until index runs merge.
Recorded merges(uint64_t seed);
// Two machines on one snapshot, each with a chain of its own.
Recorded branches(uint64_t seed);
// Machines with disks that write, discard and flush, with snapshots in between.
Recorded flushes(uint64_t seed);
// A commit fails in the n-th of its calls of this kind; then one goes well. `failed`: false where
// there is no n-th.
Recorded failing_commit(uint64_t seed, Call call, uint64_t n, const Fault& fault, bool& failed);

}  // namespace test
