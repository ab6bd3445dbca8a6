#include "tests/crash/chains.h"

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

namespace {

FaultPlan nth(Call call, uint64_t n, const Fault& fault, bool& there) {
  return [=, &there](const CallSite& site) mutable -> std::optional<Fault> {
    if (site.call != call || n-- != 0) return {};
    there = true;
    return fault;
  };
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
  script.take_failing(machine, Kind::kIncremental, nth(call, n, fault, faulty.there));
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
  script.take_failing(machine, Kind::kIncremental, nth(call, n, fault, faulty.there));
  script.stop(machine);
  script.recover();
  faulty.recorded = script.recorded();
  return faulty;
}

}  // namespace test
