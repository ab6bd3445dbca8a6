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

// What was dirty when a sync failed is gone, or not, and later ones say that all is well: nothing
// of a commit may count on it, and nothing that an old name could still need may go.
void expect_kept_after_failing_syncs(Faulty (*chain)(uint64_t, Call, uint64_t, const Fault&)) {
  for (bool drop : {false, true}) {
    for (Call call : {Call::kSync, Call::kSyncDirectory}) {
      uint64_t n = 0;
      for (;; ++n) {
        Faulty faulty = chain(n, call, n, {.error = EIO, .drop_unsynced = drop});
        if (!faulty.there) break;
        SCOPED_TRACE(std::string(call_name(call)) + " " + std::to_string(n));
        expect_kept(faulty.recorded, {.samples = 2, .seed = n + 1});
      }
      EXPECT_GE(n, 3u);
    }
  }
}

TEST(CrashTest, ASyncOfACommitFails) { expect_kept_after_failing_syncs(failing_commit); }

TEST(CrashTest, ASyncOfACommitWithADiskFails) {
  expect_kept_after_failing_syncs(failing_commit_with_disk);
}

}  // namespace
}  // namespace test
