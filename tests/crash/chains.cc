#include "tests/crash/chains.h"

#include <stdexcept>
#include <utility>

#include "tests/crash/faults.h"

namespace test {

using snapshot::Kind;

Recorded commits_and_prune(uint64_t seed) {
  Script script(seed);
  script.create_store();
  auto machine = script.boot(16);
  for (uint64_t page = 0; page < 12; ++page) machine.guest.set(page, 100 + page);
  auto first = script.take(machine, Kind::kFull);
  machine.guest.set(3, 0);
  machine.guest.set(14, 200);
  script.take(machine, Kind::kIncremental);
  machine.guest.set(3, 103);
  script.take(machine, Kind::kIncremental);
  script.prune({first});
  return script.recorded();
}

Recorded merges(uint64_t seed) {
  Script script(seed);
  script.create_store();
  auto machine = script.boot(64);
  for (uint64_t page = 0; page < 48; ++page) machine.guest.set(page, 100 + page);
  script.take(machine, Kind::kFull);
  for (uint64_t round = 1; round <= 8; ++round) {
    for (uint64_t page = 0; page < 5; ++page) machine.guest.set(round * 7 + page, round * page);
    script.take(machine, Kind::kIncremental);
    script.merge(machine);
  }
  return script.recorded();
}

Recorded branches(uint64_t seed) {
  Script script(seed);
  script.create_store();
  auto first = script.boot(16);
  for (uint64_t page = 0; page < 8; ++page) first.guest.set(page, 100 + page);
  auto root = script.take(first, Kind::kFull);
  first.guest.set(1, 201);
  script.take(first, Kind::kIncremental);
  auto second = script.restore(root);
  second.guest.set(1, 301);
  auto other = script.take(second, Kind::kIncremental);
  first.guest.set(2, 202);
  script.take(first, Kind::kIncremental);
  second.guest.set(9, 309);
  script.take(second, Kind::kIncremental);
  script.stop(first);
  script.prune({other});
  return script.recorded();
}

Script::Machine with_flushed_disk(Script& script) {
  auto machine = script.boot(16, 16);
  machine.guest.set(1, 101);
  script.take(machine, Kind::kFull, [&] { script.write(machine, 3, 303); });
  script.write(machine, 4, 304);
  script.flush(machine);
  return machine;
}

Recorded flushes(uint64_t seed) {
  Script script(seed);
  script.create_store();
  auto machine = script.boot(16, 16);
  machine.guest.set(0, 100);
  auto root = script.take(machine, Kind::kFull, [&] { script.write(machine, 3, 303); });
  script.write(machine, 4, 304);
  script.flush(machine);
  script.write(machine, 3, 313);
  script.discard(machine, 8, 4);
  script.flush(machine);
  script.write(machine, 9, 319);
  machine.guest.set(1, 101);
  script.take(machine, Kind::kIncremental);
  script.write(machine, 4, 324);
  script.flush(machine);
  script.write(machine, 4, 334);
  machine.guest.set(2, 102);
  script.take(machine, Kind::kIncremental, [&] { script.write(machine, 6, 306); });
  script.take(machine, Kind::kIncremental);
  machine.guest.set(2, 112);
  script.take(machine, Kind::kIncremental);  // of a layer without blocks, which only HEAD names
  auto other = script.restore(root);
  script.write(other, 5, 405);
  script.flush(other);
  script.write(machine, 5, 335);
  script.write(other, 7, 407);
  other.guest.set(1, 201);
  script.take(other, Kind::kIncremental);
  script.flush(machine);
  script.stop(other);
  script.prune({root});
  return script.recorded();
}

Prunable prunable(Script& script) {
  auto fill = [&](Script::Machine& machine, uint64_t value) {
    for (uint64_t block = 0; block < 16; ++block) script.write(machine, block, value + block);
  };
  Prunable made{script.boot(32, 16), {}};
  auto& machine = made.machine;
  for (uint64_t page = 0; page < 32; ++page) machine.guest.set(page, 100 + page);
  made.old.push_back(script.take(machine, Kind::kFull));
  fill(machine, 1000);
  for (uint64_t page = 0; page < 3; ++page) machine.guest.set(page, 200 + page);
  made.old.push_back(script.take(machine, Kind::kIncremental));
  // Of the first pack 12 pages are left, of the second none, when the runs are one.
  for (uint64_t page = 0; page < 20; ++page) machine.guest.set(page, 300 + page);
  made.old.push_back(script.take(machine, Kind::kIncremental));
  script.merge(machine);
  fill(machine, 2000);
  machine.guest.set(25, 0);
  script.take(machine, Kind::kIncremental);
  return made;
}

Recorded prunes(uint64_t seed) {
  Script script(seed);
  script.create_store();
  auto [machine, old] = prunable(script);
  script.write(machine, 3, 3003);
  script.flush(machine);
  script.prune(old);
  script.write(machine, 4, 3004);
  machine.guest.set(1, 401);
  script.take(machine, Kind::kIncremental);
  script.stop(machine);
  return script.recorded();
}

namespace {
void clean_up(Script& script, Then then, const snapshot::Id& pruned) {
  if (then == Then::kRecovery) return script.recover();
  script.prune({pruned});
}
}  // namespace

Recorded killed_before_head_is_durable(uint64_t seed, Then then) {
  Script script(seed);
  script.create_store();
  auto machine = script.boot(16, 16);
  machine.guest.set(1, 101);
  auto first = script.take(machine, Kind::kFull);
  machine.guest.set(1, 201);
  bool published = false, killed = false;
  script.take(machine, Kind::kIncremental, [&] {
    // The layer that is sealed has no blocks, so no snapshot will name it: only the old HEAD does.
    script.write(machine, 3, 303);
    script.system().set_faults([&](const CallSite& site) {
      published |= site.call == Call::kSyncDirectory && site.name == "snap";
      killed |= published && site.call == Call::kSyncDirectory && site.name == "heads";
      return killed ? std::optional(Fault{.error = EIO, .not_made = true}) : std::nullopt;
    });
  });
  script.stop(machine);
  script.system().set_faults({});
  if (!killed) throw std::runtime_error("script: nobody was killed");
  clean_up(script, then, first);
  return script.recorded();
}

Recorded killed_before_its_name_is_durable(uint64_t seed) {
  Script script(seed);
  script.create_store();
  auto machine = with_flushed_disk(script);
  auto first = script.promises().must.begin()->first;
  bool killed = false;
  script.system().set_faults([&](const CallSite& site) {
    killed |= site.call == Call::kSyncDirectory && site.name == "snap";
    return killed ? std::optional(Fault{.error = EIO, .not_made = true}) : std::nullopt;
  });
  (void)script.try_take(machine, Kind::kIncremental);
  script.stop(machine);
  script.system().set_faults({});
  if (!killed) throw std::runtime_error("script: nobody was killed");
  script.prune({first});
  return script.recorded();
}

Recorded killed_in_a_prune(uint64_t seed) {
  Script script(seed);
  script.create_store();
  auto [machine, old] = prunable(script);
  script.stop(machine);
  bool removed = false, killed = false;
  script.system().set_faults([&](const CallSite& site) {
    removed |= site.call == Call::kRemove && site.name.starts_with("snap/");
    killed |= removed && site.call == Call::kSyncDirectory && site.name == "snap";
    return killed ? std::optional(Fault{.error = EIO, .not_made = true}) : std::nullopt;
  });
  (void)script.try_prune(old);
  script.system().set_faults({});
  if (!killed) throw std::runtime_error("script: nobody was killed");
  script.recover();
  return script.recorded();
}

namespace {
// A machine with a disk that has ended, by its two snapshots.
std::pair<snapshot::Id, snapshot::Id> ended_machine(Script& script) {
  auto machine = script.boot(16, 16);
  machine.guest.set(1, 101);
  auto first = script.take(machine, Kind::kFull, [&] { script.write(machine, 3, 303); });
  machine.guest.set(1, 201);
  auto second = script.take(machine, Kind::kIncremental);
  script.stop(machine);
  return {first, second};
}
}  // namespace

Recorded failed_beginning(uint64_t seed, Then then) {
  Script script(seed);
  script.create_store();
  auto [first, second] = ended_machine(script);
  script.system().set_faults([&](const CallSite& site) {
    bool last = site.call == Call::kSyncDirectory && site.name == "heads";
    return last ? std::optional(Fault{.error = EIO}) : std::nullopt;
  });
  if (script.try_restore(then == Then::kPrune ? second : first)) {
    throw std::runtime_error("script: restored");
  }
  script.system().set_faults({});
  clean_up(script, then, first);
  return script.recorded();
}

namespace {

const Way kKill = {"killed", {.error = EIO, .not_made = true}, [](Call) { return true; }, true};

}  // namespace

Killed killed_commit(uint64_t n) {
  Script script(n + 1);
  script.create_store();
  auto machine = with_flushed_disk(script);
  machine.guest.set(1, 201);
  FaultAt kill(script.system(), n, kKill);
  (void)script.try_take(machine, Kind::kIncremental);
  script.stop(machine);
  kill.end();
  size_t from = script.system().recording().size();
  script.recover();
  return {script.recorded(), from, kill.met(), kill.changes()};
}

Killed killed_prune(uint64_t n) {
  Script script(n + 1);
  script.create_store();
  auto [machine, old] = prunable(script);
  script.stop(machine);
  FaultAt kill(script.system(), n, kKill);
  (void)script.try_prune(old);
  kill.end();
  size_t from = script.system().recording().size();
  std::erase_if(old, [&](const snapshot::Id& id) { return !script.store().load(id); });
  script.prune(old);
  script.recover();
  return {script.recorded(), from, kill.met(), kill.changes()};
}

namespace {

FaultPlan nth(Call call, uint64_t n, const Fault& fault, bool& there) {
  return [=, &there](const CallSite& site) mutable -> std::optional<Fault> {
    if (site.call != call || n-- != 0) return {};
    there = true;
    return fault;
  };
}

void meet(Script& script, FaultPlan plan, const std::function<void()>& what) {
  script.system().set_faults(std::move(plan));
  what();
  script.system().set_faults({});
}

}  // namespace

Faulty failing_commit(uint64_t seed, Call call, uint64_t n, const Fault& fault) {
  Faulty faulty;
  Script script(seed);
  script.create_store();
  auto machine = script.boot(16);
  for (uint64_t page = 0; page < 8; ++page) machine.guest.set(page, 100 + page);
  script.take(machine, Kind::kFull);
  machine.guest.set(1, 201);
  machine.guest.set(2, 0);
  meet(script, nth(call, n, fault, faulty.there),
       [&] { (void)script.try_take(machine, Kind::kIncremental); });
  machine.guest.set(5, 205);
  script.take(machine, Kind::kIncremental);
  script.stop(machine);
  script.recover();
  faulty.recorded = script.recorded();
  return faulty;
}

Faulty failing_commit_with_disk(uint64_t seed, Call call, uint64_t n, const Fault& fault) {
  Faulty faulty;
  Script script(seed);
  script.create_store();
  auto machine = script.boot(16, 16);
  machine.guest.set(1, 101);
  script.take(machine, Kind::kFull);
  script.write(machine, 3, 303);
  script.flush(machine);
  script.write(machine, 4, 304);
  machine.guest.set(1, 201);
  meet(script, nth(call, n, fault, faulty.there),
       [&] { (void)script.try_take(machine, Kind::kIncremental); });
  script.stop(machine);
  script.recover();
  faulty.recorded = script.recorded();
  return faulty;
}

Faulty failing_prune(uint64_t seed, Call call, uint64_t n, const Fault& fault) {
  Faulty faulty;
  Script script(seed);
  script.create_store();
  auto [machine, old] = prunable(script);
  script.write(machine, 3, 3003);
  script.flush(machine);
  meet(script, nth(call, n, fault, faulty.there), [&] { (void)script.try_prune(old); });
  machine.guest.set(1, 401);
  script.take(machine, Kind::kIncremental);
  script.stop(machine);
  faulty.recorded = script.recorded();
  return faulty;
}

Faulty failing_branch(uint64_t seed, Call call, uint64_t n, const Fault& fault) {
  Faulty faulty;
  Script script(seed);
  script.create_store();
  auto root = ended_machine(script).first;
  base::Result<Script::Machine> second = base::fail("not restored");
  meet(script, nth(call, n, fault, faulty.there), [&] {
    second = script.try_restore(root);
    if (!second) return;
    script.write(*second, 5, 405);
    second->guest.set(2, 302);
    (void)script.try_take(*second, Kind::kIncremental);
  });
  if (!second) second = script.restore(root);
  (void)script.try_flush(*second);
  script.stop(*second);
  faulty.recorded = script.recorded();
  return faulty;
}

}  // namespace test
