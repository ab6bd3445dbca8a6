// Every call that a commit makes fails once, in every way: the error names the file, the chain is
// as before, the next commit has everything, and nothing is left over.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "snapshot/store/store.h"
#include "tests/crash/faults.h"
#include "tests/crash/script.h"

namespace test {
namespace {

using snapshot::Kind;
using ::testing::HasSubstr;

class FaultTest : public ::testing::TestWithParam<Way> {
 protected:
  // One commit on a chain of two, its call `number` failing. False where it has no such call.
  bool run(uint64_t number) {
    Script script(number);
    script.create_store();
    auto machine = script.boot(16);
    for (uint64_t page = 0; page < 8; ++page) machine.guest.set(page, 100 + page);
    auto first = script.take(machine, Kind::kFull);
    machine.guest.set(1, 201);
    auto second = script.take(machine, Kind::kIncremental);
    machine.guest.set(2, 0);
    machine.guest.set(9, 209);

    FaultAt fault(script.system(), number, GetParam());
    auto taken = machine.guest.take(script.store(), *machine.branch, Kind::kIncremental);
    fault.end();
    if (!fault.met()) return false;
    SCOPED_TRACE("call " + std::to_string(number) + ": " + fault.text());
    std::vector<snapshot::Id> expected{first, second};
    if (taken) {
      expected.push_back(*taken);
    } else {
      EXPECT_TRUE(fault.failed());
      EXPECT_THAT(taken.error().text(), HasSubstr(fault.name()));
      EXPECT_EQ(ids(script.store()), expected) << taken.error().text();
    }
    machine.guest.set(10, 210);
    auto next = machine.guest.take(script.store(), *machine.branch, Kind::kIncremental);
    EXPECT_TRUE(next) << next.error().text();
    if (!next) return true;
    expected.push_back(*next);
    EXPECT_EQ(ids(script.store()), expected);
    Promises promises{.store = true, .must = {}, .may = {}, .may_appear = {}, .disks = {}};
    for (const auto& id : expected) {
      auto content = read_content(script.store(), id);
      EXPECT_TRUE(content) << content.error().text();
      if (content) promises.must[id] = *content;
    }
    EXPECT_EQ(promises.must[*next], machine.guest.content());
    EXPECT_EQ(broken_promise(script.system().image(), promises), "");
    return true;
  }

  static std::vector<snapshot::Id> ids(snapshot::Store& store) {
    std::vector<snapshot::Id> ids;
    auto listed = store.list();
    EXPECT_TRUE(listed);
    for (const auto& info : *listed) {
      EXPECT_EQ(info.damage, "");
      ids.push_back(info.id);
    }
    return ids;
  }
};

TEST_P(FaultTest, AtEveryCallOfACommit) {
  uint64_t number = 0;
  while (run(number)) ++number;
  EXPECT_GT(number, 15u);  // a machine without disks: no HEAD
}

INSTANTIATE_TEST_SUITE_P(Ways, FaultTest, ::testing::ValuesIn(ways()),
                         [](const auto& way) { return way_name(way.param); });

}  // namespace
}  // namespace test
