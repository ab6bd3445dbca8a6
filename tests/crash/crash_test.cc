// After a power cut at any moment of a script: every snapshot that was committed restores, nothing
// that is shown is damaged, the next snapshot is complete.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <string>

#include "tests/crash/chains.h"

namespace test {
namespace {

void expect_kept(const Recorded& recorded, const CrashPlan& plan, size_t from = 0) {
  auto failure = find_crash_failure(recorded, plan, from);
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

// Each kind of what a prune gives back: it has to be there for the crash states to say anything.
TEST(CrashTest, PruneOfPacksRunsAndLayers) {
  for (uint64_t seed : {1, 2}) {
    Recorded recorded = prunes(seed);
    size_t begin = position_of_mark(recorded.recording, "prune");
    std::multiset<std::string> freed;
    for (size_t at = begin; at < position_of_mark(recorded.recording, "pruned"); ++at) {
      const Event& event = recorded.recording[at];
      bool removed = event.kind == Event::Kind::kRemove;
      if (!removed && event.kind != Event::Kind::kPunch) continue;
      freed.insert((removed ? "" : "part of ") + event.text.substr(0, event.text.find('/')));
    }
    EXPECT_EQ(freed, (std::multiset<std::string>{"layers", "packs", "part of packs", "runs", "runs",
                                                 "runs", "runs", "snap", "snap", "snap"}));
    expect_kept(recorded, {.samples = 4, .seed = seed}, begin);
  }
}

TEST(CrashTest, RecoveryAfterWhatIsNotDurable) {
  for (const Recorded& recorded :
       {killed_before_head_is_durable(1, Then::kRecovery),
        killed_before_head_is_durable(1, Then::kPrune), killed_before_its_name_is_durable(1),
        killed_in_a_prune(1), failed_beginning(1, Then::kRecovery),
        failed_beginning(1, Then::kPrune)}) {
    expect_kept(recorded, {.samples = 8, .seed = 1},
                position_of_mark(recorded.recording, "machine stopped"));
  }
}

// What a killed process had done is there at first, durable or not, and what comes after it counts
// on that at its peril. (Killed before it reads is killed before the next change.)
void expect_kept_after_kills(Killed (*chain)(uint64_t), uint64_t least) {
  uint64_t n = 0;
  for (;; ++n) {
    Killed killed = chain(n);
    if (!killed.there) break;
    if (!killed.changes) continue;
    SCOPED_TRACE("killed at call " + std::to_string(n));
    expect_kept(killed.recorded, {.samples = 0, .seed = n + 1}, killed.from);
  }
  EXPECT_GE(n, least);
}

TEST(CrashTest, AKillAtAnyCallOfACommit) { expect_kept_after_kills(killed_commit, 30); }

TEST(CrashTest, AKillAtAnyCallOfAPrune) { expect_kept_after_kills(killed_prune, 50); }

// What was dirty when a sync failed is gone, or not, and later ones say that all is well: nothing
// of a commit may count on it, and nothing that an old name could still need may go. `least`: of
// each kind there are so many.
void expect_kept_after_failing_syncs(Faulty (*chain)(uint64_t, Call, uint64_t, const Fault&),
                                     std::map<Call, uint64_t> least) {
  for (auto [call, drop] : {std::pair(Call::kSync, false), std::pair(Call::kSync, true),
                            std::pair(Call::kSyncDirectory, false)}) {
    uint64_t n = 0;
    for (;; ++n) {
      Faulty faulty = chain(n, call, n, {.error = EIO, .drop_unsynced = drop});
      if (!faulty.there) break;
      SCOPED_TRACE(std::string(call_name(call)) + " " + std::to_string(n));
      const Recording& recording = faulty.recorded.recording;
      auto failed = std::ranges::find_if(recording, &Event::failed);
      ASSERT_NE(failed, recording.end());
      expect_kept(faulty.recorded, {.samples = 2, .seed = n + 1},
                  static_cast<size_t>(failed - recording.begin()));
    }
    EXPECT_GE(n, least[call]) << call_name(call);
  }
}

TEST(CrashTest, ASyncOfACommitFails) {
  expect_kept_after_failing_syncs(failing_commit, {{Call::kSync, 3}, {Call::kSyncDirectory, 3}});
}

TEST(CrashTest, ASyncOfACommitWithADiskFails) {
  expect_kept_after_failing_syncs(failing_commit_with_disk,
                                  {{Call::kSync, 6}, {Call::kSyncDirectory, 6}});
}

TEST(CrashTest, ASyncOfAPruneFails) {
  expect_kept_after_failing_syncs(failing_prune, {{Call::kSyncDirectory, 3}});
}

TEST(CrashTest, ASyncOfABranchFails) {
  expect_kept_after_failing_syncs(failing_branch, {{Call::kSync, 6}, {Call::kSyncDirectory, 8}});
}

}  // namespace
}  // namespace test
