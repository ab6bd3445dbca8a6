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
// A machine that has a snapshot, and has written and flushed a block since.
Script::Machine with_flushed_disk(Script& script);
// A machine of 32 pages and 16 blocks that runs. Its snapshots `old` are the only ones that need a
// pack, a part of another that is worth a hole, index runs and a disk layer.
struct Prunable {
  Script::Machine machine;
  std::vector<snapshot::Id> old;
};
Prunable prunable(Script& script);
// That machine's old snapshots are pruned, between a flush and its next snapshot.
Recorded prunes(uint64_t seed);
// What is not durable and then comes a recovery, or a prune: a machine is killed when its commit
// has replaced HEAD; a prune, when it has removed manifests; a machine that could not begin,
// because HEAD could not be made durable, takes it away again.
enum class Then { kRecovery, kPrune };
Recorded killed_before_head_is_durable(uint64_t seed, Then then);
// The same when it has given the snapshot its name; then the one before it is pruned.
Recorded killed_before_its_name_is_durable(uint64_t seed);
Recorded killed_in_a_prune(uint64_t seed);
Recorded failed_beginning(uint64_t seed, Then then);
// Killed instead in the n-th call of a commit, or of a prune that the next one completes.
struct Killed {
  Recorded recorded;
  size_t from = 0;                      // what comes after the kill
  bool there = false, changes = false;  // there is an n-th, and it would have changed something
};
Killed killed_commit(uint64_t n);
Killed killed_prune(uint64_t n);
// A commit meets a fault in the n-th of its calls of this kind. Then one goes well, or the machine
// stops and what it left is cleaned up. `there`: is there an n-th?
struct Faulty {
  Recorded recorded;
  bool there = false;
};
Faulty failing_commit(uint64_t seed, Call call, uint64_t n, const Fault& fault);
Faulty failing_commit_with_disk(uint64_t seed, Call call, uint64_t n, const Fault& fault);
// The same of a prune, after which the machine takes a snapshot and stops; of a machine that is
// restored, or then another, and takes its first snapshot.
Faulty failing_prune(uint64_t seed, Call call, uint64_t n, const Fault& fault);
Faulty failing_branch(uint64_t seed, Call call, uint64_t n, const Fault& fault);

}  // namespace test
