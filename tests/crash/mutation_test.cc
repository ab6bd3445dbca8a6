// The proof of the crash tests: a store that leaves out one sync, or does two things in the wrong
// order, is caught.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <string>

#include "tests/crash/chains.h"
#include "tests/crash/mutations.h"

namespace test {
namespace {

using ::testing::UnorderedElementsAreArray;

// The names of those that no crash state shows.
std::set<std::string> not_caught(const Recorded& recorded) {
  EXPECT_EQ(find_crash_failure(recorded, {.samples = 0, .seed = 1}).text, "");
  auto all = mutations(recorded.recording);
  EXPECT_GT(all.size(), 50u);
  std::set<std::string> names;
  for (const Mutation& mutation : all) {
    Recorded mutated = recorded;
    mutated.recording = mutation.recording;
    auto failure = find_crash_failure(mutated, {.samples = 4, .seed = 1}, mutation.from);
    if (failure.text.empty()) names.insert(mutation.name);
  }
  return names;
}

TEST(MutationTest, OfMachinesWithDisks) {
  EXPECT_THAT(not_caught(flushes(1)), UnorderedElementsAreArray(std::set<std::string>{}));
}

// A machine without disks promises nothing by its HEAD.
TEST(MutationTest, OfCommitsMergesAndPrune) {
  for (auto chain : {commits_and_prune, merges}) {
    auto names = not_caught(chain(1));
    std::erase_if(names, [](const std::string& name) { return name.find("heads") != name.npos; });
    EXPECT_THAT(names, UnorderedElementsAreArray(std::set<std::string>{}));
  }
}

}  // namespace
}  // namespace test
