#include "snapshot/convergence.h"

#include <gtest/gtest.h>

#include <vector>

namespace snapshot {
namespace {

using Next = Convergence::Next;

constexpr uint64_t kLimit = 1000;
constexpr uint64_t kSecond = 1'000'000'000;

// What follows from looks, a second apart, that find so much.
std::vector<Next> after(Convergence::Rules rules, const std::vector<uint64_t>& looks) {
  Convergence convergence(rules);
  std::vector<Next> all;
  all.reserve(looks.size());
  for (uint64_t left : looks) all.push_back(convergence.next(left, kLimit, all.size() * kSecond));
  return all;
}

constexpr Next R = Next::kRound, T = Next::kThrottledRound, P = Next::kPause,
               X = Next::kPauseAtAnyPrice;
const Convergence::Rules kThrottle{.patience_ns = 10 * kSecond};
const Convergence::Rules kStop{.stop_hot = true};

TEST(ConvergenceTest, RoundsUntilWhatIsLeftIsLittle) {
  EXPECT_EQ(after(kThrottle, {0}), (std::vector{P}));
  EXPECT_EQ(after(kThrottle, {250}), (std::vector{P}));
  EXPECT_EQ(after(kThrottle, {50000, 9000, 1700, 200}), (std::vector{R, R, R, P}));
}

TEST(ConvergenceTest, AFullOneBeginsWithARound) {
  EXPECT_EQ(after({.full = true}, {10, 10}), (std::vector{R, P}));
  EXPECT_EQ(after({.full = true}, {0}), (std::vector{P}));
}

TEST(ConvergenceTest, ARoundMoreForAShorterPauseTwiceAtMost) {
  EXPECT_EQ(after(kThrottle, {1000, 200}), (std::vector{R, P}));
  EXPECT_EQ(after(kThrottle, {1000, 600, 400}), (std::vector{R, R, P}));
  // Not where the last one did not help.
  EXPECT_EQ(after(kThrottle, {1000, 900}), (std::vector{R, P}));
}

TEST(ConvergenceTest, AHotGuestIsThrottledOrStopped) {
  const std::vector<uint64_t> hot(6, 5000);
  EXPECT_EQ(after(kThrottle, hot), (std::vector{R, R, R, R, T, T}));
  EXPECT_EQ(after(kStop, {5000, 5000, 5000, 5000, 5000}), (std::vector{R, R, R, R, X}));
  // It stays throttled until there is a pause, which is not put off any more.
  EXPECT_EQ(after(kThrottle, {5000, 5000, 5000, 5000, 5000, 1100, 900}),
            (std::vector{R, R, R, R, T, T, P}));
}

// Looks that fit, and others after rounds that were not needed.
TEST(ConvergenceTest, RoundsForAShorterPauseMakeNoGuestHot) {
  for (const auto& rules : {kThrottle, kStop}) {
    EXPECT_EQ(after(rules, {700, 1050, 700, 1050, 700}), (std::vector{R, R, R, R, P}));
  }
}

TEST(ConvergenceTest, APauseThatWasGivenUpIsFollowedByAnother) {
  EXPECT_EQ(after(kThrottle, {200, 3000, 200}), (std::vector{P, R, P}));
}

TEST(ConvergenceTest, ThrottlingInVainEnds) {
  std::vector<uint64_t> looks(30, 5000);
  auto all = after(kThrottle, looks);
  // Throttled from the fifth look on, for ten seconds and no longer.
  EXPECT_EQ(std::vector(all.begin(), all.begin() + 15),
            (std::vector{R, R, R, R, T, T, T, T, T, T, T, T, T, T, T}));
  EXPECT_EQ(all[15], X);
  // As long as it helps it goes on.
  for (size_t i = 0; i < looks.size(); ++i) looks[i] = 1000000 - 1000000 * i / 32;
  looks.resize(25);
  for (Next next : after(kThrottle, looks)) EXPECT_NE(next, X);
  // Slow rounds: some are waited for.
  Convergence slow(kThrottle);
  for (uint64_t i = 0; i < 8; ++i) EXPECT_NE(slow.next(5000, kLimit, i * 60 * kSecond), X) << i;
  EXPECT_EQ(slow.next(5000, kLimit, 480 * kSecond), X);
}

TEST(ConvergenceTest, RoundsHaveAnEnd) {
  Convergence convergence({.patience_ns = UINT64_MAX});
  unsigned rounds = 0;
  while (convergence.next(5000, kLimit, rounds) != X) ASSERT_LT(++rounds, 1000u);
  EXPECT_EQ(rounds, 200u);
}

}  // namespace
}  // namespace snapshot
