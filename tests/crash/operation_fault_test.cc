// Every call of what else changes a store (a commit with a disk, a prune, a merge, a machine that
// is restored, a recovery) fails once, in every way: it succeeds or says what failed, every
// snapshot is what it was, the next one is complete, what the guest had flushed is there, and a
// recovery finds nothing that it has to leave.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "snapshot/store/format.h"
#include "snapshot/store/store.h"
#include "tests/crash/chains.h"
#include "tests/crash/faults.h"
#include "tests/crash/script.h"

namespace test {
namespace {

using snapshot::Id;
using snapshot::Kind;
using ::testing::HasSubstr;

std::set<Id> listed(snapshot::Store& store) {
  std::set<Id> ids;
  auto infos = store.list();
  EXPECT_TRUE(infos);
  for (const auto& info : *infos) {
    EXPECT_EQ(info.damage, "");
    ids.insert(info.id);
  }
  return ids;
}

std::set<Id> committed(const Script& script) {
  std::set<Id> ids;
  for (const auto& [id, content] : script.promises().must) ids.insert(id);
  return ids;
}

void expect_kept(Script& script) {
  EXPECT_EQ(broken_promise(script.system().image(), script.promises()), "");
}

class OperationFaultTest : public ::testing::TestWithParam<Way> {
 protected:
  // `run` meets a fault in its call `number`, false where it has none.
  using Run = std::function<bool(uint64_t number)>;
  void at_every_call(uint64_t least, const Run& run) {
    uint64_t number = 0;
    for (;; ++number) {
      SCOPED_TRACE("call " + std::to_string(number));
      bool there = false;
      EXPECT_NO_THROW(there = run(number));
      if (!there || HasFatalFailure()) break;
    }
    EXPECT_GE(number, least);
  }

  template <typename T>
  void expect_named(const base::Result<T>& result, const FaultAt& fault) {
    if (result) return;
    EXPECT_TRUE(fault.failed());
    EXPECT_THAT(result.error().text(), HasSubstr(fault.name()));
  }

  // A snapshot of the machine after it met a fault. Its disk is given up where the sync of a layer
  // failed, and only there: what that sync should have made durable may be lost for good.
  void goes_on(Script& script, Script::Machine& machine, const FaultAt& fault) {
    bool lost =
        fault.failed() && fault.call() == Call::kSync && fault.name().starts_with("layers/");
    EXPECT_EQ(script.try_flush(machine), !lost);
    if (!lost) {
      script.write(machine, 6, 606);
      script.flush(machine);
    }
    expect_kept(script);  // were it killed now
    machine.guest.set(5, 505);
    auto next = script.try_take(machine, Kind::kIncremental);
    EXPECT_EQ(next.has_value(), !lost) << (next ? "" : next.error().text());
    EXPECT_EQ(listed(script.store()), committed(script));
  }
};

TEST_P(OperationFaultTest, ACommitWithADisk) {
  at_every_call(30, [&](uint64_t number) {
    Script script(number);
    script.create_store();
    auto machine = with_flushed_disk(script);
    script.write(machine, 5, 305);
    machine.guest.set(1, 201);
    FaultAt fault(script.system(), number, GetParam());
    auto taken = script.try_take(machine, Kind::kIncremental);
    fault.end();
    SCOPED_TRACE(fault.text());
    expect_named(taken, fault);
    EXPECT_EQ(listed(script.store()), committed(script));
    goes_on(script, machine, fault);
    script.stop(machine);
    expect_kept(script);
    return fault.met();
  });
}

TEST_P(OperationFaultTest, APrune) {
  at_every_call(30, [&](uint64_t number) {
    Script script(number);
    script.create_store();
    auto [machine, old] = prunable(script);
    script.write(machine, 3, 3003);
    script.flush(machine);
    FaultAt fault(script.system(), number, GetParam());
    auto report = script.try_prune(old);
    fault.end();
    SCOPED_TRACE(fault.text());
    expect_named(report, fault);
    // Again, what of it is left.
    auto there = listed(script.store());
    std::erase_if(old, [&](const Id& id) { return !there.contains(id); });
    script.prune(old);
    EXPECT_EQ(listed(script.store()), committed(script));
    goes_on(script, machine, fault);
    script.stop(machine);
    expect_kept(script);
    return fault.met();
  });
}

TEST_P(OperationFaultTest, AMerge) {
  at_every_call(5, [&](uint64_t number) {
    Script script(number);
    script.create_store();
    auto machine = script.boot(16, 16);
    for (uint64_t page = 0; page < 16; ++page) machine.guest.set(page, 100 + page);
    script.take(machine, Kind::kFull, [&] { script.write(machine, 3, 303); });
    machine.guest.set(1, 201);
    script.take(machine, Kind::kIncremental);
    FaultAt fault(script.system(), number, GetParam());
    auto merged = machine.branch->merge_if_due();
    fault.end();
    SCOPED_TRACE(fault.text());
    expect_named(merged, fault);
    goes_on(script, machine, fault);
    script.merge(machine);
    machine.guest.set(7, 707);
    script.take(machine, Kind::kIncremental);
    script.stop(machine);
    expect_kept(script);
    return fault.met();
  });
}

TEST_P(OperationFaultTest, ABranchAndItsFirstCommit) {
  at_every_call(40, [&](uint64_t number) {
    Script script(number);
    script.create_store();
    auto machine = with_flushed_disk(script);
    const Id root = machine.branch->parent()->id();
    FaultAt fault(script.system(), number, GetParam());
    auto branch = script.try_restore(root);
    expect_named(branch, fault);
    if (branch && fault.met()) {
      script.write(*branch, 5, 405);
      script.flush(*branch);
      expect_kept(script);
    }
    if (branch) {
      branch->guest.set(2, 302);
      expect_named(script.try_take(*branch, Kind::kIncremental), fault);
    }
    fault.end();
    SCOPED_TRACE(fault.text());
    if (!branch) branch = script.try_restore(root);
    EXPECT_TRUE(branch);
    goes_on(script, *branch, fault);
    machine.guest.set(3, 403);
    script.take(machine, Kind::kIncremental);
    script.stop(*branch);
    script.stop(machine);
    expect_kept(script);
    return fault.met();
  });
}

// Of what a machine left that was killed in a commit.
TEST_P(OperationFaultTest, ARecovery) {
  at_every_call(25, [&](uint64_t number) {
    Script script(number);
    script.create_store();
    auto machine = script.boot(16, 16);
    machine.guest.set(1, 101);
    script.take(machine, Kind::kFull, [&] { script.write(machine, 3, 303); });
    machine.guest.set(1, 201);
    bool killed = false;
    const snapshot::Id branch = machine.branch->id();
    script.system().set_faults([&](const CallSite& site) {
      killed |= site.call == Call::kRename && site.name.starts_with("tmp/") &&
                site.name != snapshot::temporary_name(branch, branch);  // HEAD's
      return killed ? std::optional(Fault{.error = EIO, .not_made = true}) : std::nullopt;
    });
    EXPECT_FALSE(script.try_take(machine, Kind::kIncremental));
    script.stop(machine);
    script.system().set_faults({});
    FaultAt fault(script.system(), number, GetParam());
    auto recovered = script.store().recover();
    fault.end();
    SCOPED_TRACE(fault.text());
    expect_named(recovered, fault);
    auto again = script.store().recover();
    EXPECT_TRUE(again);
    uint64_t files = (recovered ? recovered->files : 0) + (again ? again->files : 0);
    if (!fault.failed()) {
      EXPECT_GE(files, 4u);  // a pack, two runs, a manifest
    }
    expect_kept(script);
    return fault.met();
  });
}

INSTANTIATE_TEST_SUITE_P(Ways, OperationFaultTest, ::testing::ValuesIn(ways()),
                         [](const auto& way) { return way_name(way.param); });

}  // namespace
}  // namespace test
