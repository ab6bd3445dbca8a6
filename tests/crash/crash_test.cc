// After a power cut at any moment of a script: every snapshot that was committed restores, nothing
// that is shown is damaged, the next snapshot is complete.
#include <gtest/gtest.h>

#include "tests/crash/chains.h"

namespace test {
namespace {

void expect_kept(const Recorded& recorded, const CrashPlan& plan) {
  auto failure = find_crash_failure(recorded, plan);
  EXPECT_EQ(failure.text, "") << "seed " << plan.seed << ", after " << failure.states << " states";
  ::testing::Test::RecordProperty("states", std::to_string(failure.states));
}

TEST(CrashTest, CommitsAndPrune) {
  for (uint64_t seed : {1, 2, 3})
    expect_kept(commits_and_prune(seed), {.samples = 8, .seed = seed});
}

TEST(CrashTest, Merges) { expect_kept(merges(1), {.samples = 4, .seed = 1}); }

TEST(CrashTest, Branches) { expect_kept(branches(1), {.samples = 4, .seed = 1}); }

TEST(CrashTest, Flushes) {
  for (uint64_t seed : {1, 2}) expect_kept(flushes(seed), {.samples = 4, .seed = seed});
}

// The dirty pages of a file whose sync failed are gone, or not: nothing of a commit may count on
// it.
TEST(CrashTest, ASyncOfTheCommitFails) {
  for (bool drop : {false, true}) {
    for (Call call : {Call::kSync, Call::kSyncDirectory}) {
      bool failed = true;
      for (uint64_t n = 0; failed; ++n) {
        auto recorded = failing_commit(n, call, n, {.error = EIO, .drop_unsynced = drop}, failed);
        if (!failed) break;
        SCOPED_TRACE(std::string(call_name(call)) + " " + std::to_string(n));
        expect_kept(recorded, {.samples = 2, .seed = n + 1});
      }
    }
  }
}

}  // namespace
}  // namespace test
