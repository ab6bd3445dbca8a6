// The proof of the crash tests: a store that leaves out one sync, or does two things in the wrong
// order, is caught.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "tests/crash/chains.h"
#include "tests/crash/mutations.h"

namespace test {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

struct Part {
  Recorded recorded;
  // Of the recording: mutations that begin here.
  size_t from = 0, end = SIZE_MAX;
};

Part between(Recorded recorded, const std::string& from, const std::string& end) {
  Part part{std::move(recorded)};
  if (!from.empty()) part.from = position_of_mark(part.recorded.recording, from);
  if (!end.empty()) part.end = position_of_mark(part.recorded.recording, end);
  return part;
}

// The names of mutations that no crash state of any part shows. A name is a place of the store's
// code: what it does there is needed where one of its mutations is caught.
std::set<std::string> not_caught(const std::vector<Part>& parts, size_t least) {
  std::map<std::string, bool> caught;
  size_t count = 0;
  for (const Part& part : parts) {
    const CrashPlan plan{.samples = 0, .seed = 1};
    EXPECT_EQ(find_crash_failure(part.recorded, plan, part.from).text, "");
    for (const Mutation& mutation : mutations(part.recorded.recording)) {
      if (mutation.from < part.from || mutation.from >= part.end) continue;
      ++count;
      bool& shown = caught[mutation.name];
      if (shown) continue;
      Recorded mutated = part.recorded;
      mutated.recording = mutation.recording;
      auto failure = find_crash_failure(mutated, {.samples = 4, .seed = 1}, mutation.from);
      shown = !failure.text.empty();
    }
  }
  EXPECT_GT(count, least);
  std::set<std::string> names;
  for (const auto& [name, shown] : caught) {
    if (!shown) names.insert(name);
  }
  return names;
}

TEST(MutationTest, OfMachinesWithDisks) {
  EXPECT_THAT(not_caught({between(flushes(1), "", "prune")}, 50),
              // Of the HEAD that names the next layer: behind the manifest's rename is early enough
              // where the guest was told of no flush before.
              ElementsAre("[commit] after the rename: sync directory heads"));
}

TEST(MutationTest, OfCommits) {
  EXPECT_THAT(not_caught({between(commits_and_prune(1), "", "prune")}, 50), IsEmpty());
}

TEST(MutationTest, OfMerges) {
  EXPECT_THAT(not_caught({{merges(1)}}, 50),
              // The next commit begins, which will name the merged run.
              ElementsAre("[committed] after the answer: sync runs/*"));
}

TEST(MutationTest, OfPrunes) {
  EXPECT_THAT(
      not_caught({between(prunes(1), "prune", "pruned"),
                  between(killed_before_head_is_durable(1, Then::kPrune), "prune", "pruned"),
                  between(failed_beginning(1, Then::kPrune), "prune", "pruned")},
                 5),
      IsEmpty());
}

// What a recovery removes must not be named by something that a power cut brings back.
TEST(MutationTest, OfRecoveries) {
  EXPECT_THAT(
      not_caught({between(killed_before_head_is_durable(1, Then::kRecovery), "recovery", ""),
                  between(killed_in_a_prune(1), "recovery", ""),
                  between(failed_beginning(1, Then::kRecovery), "recovery", "")},
                 5),
      IsEmpty());
}

}  // namespace
}  // namespace test
