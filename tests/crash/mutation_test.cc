// The proof of the crash tests: a store that leaves out one sync, or does two things in the wrong
// order, is caught.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <set>
#include <string>

#include "tests/crash/chains.h"
#include "tests/crash/mutations.h"

namespace test {
namespace {

using ::testing::UnorderedElementsAreArray;

// The names of those that no crash state shows, of those that begin in [from, end).
std::set<std::string> not_caught(const Recorded& recorded, size_t from = 0, size_t end = SIZE_MAX,
                                 size_t least = 50) {
  EXPECT_EQ(find_crash_failure(recorded, {.samples = 0, .seed = 1}, from).text, "");
  auto all = mutations(recorded.recording);
  std::erase_if(
      all, [&](const Mutation& mutation) { return mutation.from < from || mutation.from >= end; });
  EXPECT_GT(all.size(), least);
  std::set<std::string> names;
  for (const Mutation& mutation : all) {
    Recorded mutated = recorded;
    mutated.recording = mutation.recording;
    auto failure = find_crash_failure(mutated, {.samples = 4, .seed = 1}, mutation.from);
    if (failure.text.empty()) names.insert(mutation.name);
  }
  return names;
}

// Below: what no state shows. Where a sync moves behind the rename nothing is between the two, so
// it stays where it is; the syncs of HEADs and of a prune's names are asked for more than once, and
// the scripts end too early to see one alone missing. Whatever else leaves a sync out is caught.
using Names = std::set<std::string>;

TEST(MutationTest, OfMachinesWithDisks) {
  EXPECT_THAT(not_caught(flushes(1)),
              UnorderedElementsAreArray(Names{
                  "[branch made] after the rename: sync directory layers",
                  "[commit after a flush] after the answer: sync directory heads/*",
                  "[commit after a flush] after the rename: sync layers/0-*",
                  "[commit after a flush] left out: sync directory heads/*",
                  "[commit after a flush] left out: sync layers/0-*",
                  "[commit] after the answer: sync directory heads/*",
                  "[commit] after the rename: sync directory heads/*",
                  "[commit] left out: sync directory heads/*",
                  "[full commit] after the rename: sync directory layers",
                  "[prune] after the answer: sync directory heads",
                  "[prune] after the answer: sync directory heads/*",
                  "[prune] after the answer: sync directory snap",
                  "[prune] left out: sync directory heads",
                  "[prune] left out: sync directory heads/*",
                  "[prune] left out: sync directory snap",
              }));
}

TEST(MutationTest, OfCommitsAndPrune) {
  EXPECT_THAT(not_caught(commits_and_prune(1)),
              UnorderedElementsAreArray(Names{
                  "[prune] after the answer: sync directory heads",
                  "[prune] after the answer: sync directory heads/*",
                  "[prune] after the answer: sync directory snap",
                  "[prune] left out: sync directory heads",
                  "[prune] left out: sync directory heads/*",
                  "[prune] left out: sync directory snap",
              }));
}

// Only of the prune: the commits are those of the other scripts.
TEST(MutationTest, OfAPruneThatFreesSpace) {
  Recorded recorded = prunes(1);
  size_t from = position_of_mark(recorded.recording, "prune");
  size_t end = position_of_mark(recorded.recording, "pruned");
  EXPECT_THAT(not_caught(recorded, from, end, 5),
              UnorderedElementsAreArray(Names{
                  "[prune] after the answer: sync directory heads",
                  "[prune] after the answer: sync directory heads/*",
                  "[prune] left out: sync directory heads",
                  "[prune] left out: sync directory heads/*",
              }));
}

// What a recovery removes must not be named by a HEAD that a power cut brings back. The names of
// snapshots and of branches were durable before.
TEST(MutationTest, OfARecoveryAfterAKill) {
  Recorded recorded = recovery_after_a_kill(1);
  size_t from = position_of_mark(recorded.recording, "machine stopped");
  EXPECT_THAT(not_caught(recorded, from, SIZE_MAX, 5),
              UnorderedElementsAreArray(Names{
                  "[machine stopped] after the answer: sync directory heads",
                  "[machine stopped] after the answer: sync directory snap",
                  "[machine stopped] left out: sync directory heads",
                  "[machine stopped] left out: sync directory snap",
              }));
}

// The commit that names a merged run syncs it again.
TEST(MutationTest, OfMerges) {
  EXPECT_THAT(not_caught(merges(1)), UnorderedElementsAreArray(Names{
                                         "[committed] after the answer: sync runs/*",
                                         "[committed] before the last write: sync runs/*",
                                         "[committed] left out: sync runs/*",
                                     }));
}

}  // namespace
}  // namespace test
