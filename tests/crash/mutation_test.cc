// The proof of the crash tests: a store that leaves out one sync, or does two things in the wrong
// order, is caught.
#include <gtest/gtest.h>

#include "tests/crash/chains.h"
#include "tests/crash/mutations.h"

namespace test {
namespace {

void expect_all_caught(const Recorded& recorded) {
  ASSERT_EQ(find_crash_failure(recorded, {.samples = 0, .seed = 1}).text, "");
  auto all = mutations(recorded.recording);
  ASSERT_GT(all.size(), 30u);
  for (const Mutation& mutation : all) {
    Recorded mutated = recorded;
    mutated.recording = mutation.recording;
    auto failure = find_crash_failure(mutated, {.samples = 4, .seed = 1}, mutation.from);
    EXPECT_NE(failure.text, "") << "not caught: " << mutation.name << ", " << failure.states
                                << " states";
  }
}

TEST(MutationTest, EveryOneOfCommitsAndPruneIsCaught) { expect_all_caught(commits_and_prune(1)); }

TEST(MutationTest, EveryOneOfFlushesIsCaught) { expect_all_caught(flushes(1)); }

}  // namespace
}  // namespace test
