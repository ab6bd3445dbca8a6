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
// A commit meets a fault in the n-th of its calls of this kind. Then one goes well, or the machine
// stops and what it left is cleaned up. `there`: is there an n-th?
struct Faulty {
  Recorded recorded;
  bool there = false;
};
Faulty failing_commit(uint64_t seed, Call call, uint64_t n, const Fault& fault);
Faulty failing_commit_with_disk(uint64_t seed, Call call, uint64_t n, const Fault& fault);

}  // namespace test
