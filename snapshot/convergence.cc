#include "snapshot/convergence.h"

namespace snapshot {

namespace {

// A round that leaves more than this part of what it had to copy does not converge.
constexpr double kHotRatio = 0.7;
constexpr uint64_t kPatientRounds = 4;
constexpr uint64_t kMostRounds = 200;
// A pause that has to copy no more than this part of what it could is short enough.
constexpr uint64_t kShortPause = 4;
constexpr uint64_t kMostShortenings = 2;
// More than this part of the least so far is as much.
constexpr double kProgress = 0.9;

}  // namespace

Convergence::Next Convergence::next(uint64_t left, uint64_t limit, uint64_t now_ns) {
  const bool first = rounds_ == 0;
  const bool converging =
      first || static_cast<double>(left) <= kHotRatio * static_cast<double>(before_);
  // What a round more than needed left says nothing of the guest.
  if (!converging && !shortening_) ++hot_;
  before_ = left;

  const bool fits = left <= limit && (!first || !rules_.full || left == 0);
  // The guest hardly feels so short a round, and all the less of a pause after it.
  shortening_ = fits && left > limit / kShortPause && converging && hot_ == 0 &&
                shortenings_ < kMostShortenings;
  if (fits && !shortening_) return Next::kPause;
  if (rounds_ >= kMostRounds) return Next::kPauseAtAnyPrice;
  if (!fits && hot_ >= kPatientRounds) {
    if (rules_.stop_hot || in_vain(left, now_ns)) return Next::kPauseAtAnyPrice;
    throttled_ = true;
  }
  ++rounds_;
  if (shortening_) ++shortenings_;
  return throttled_ ? Next::kThrottledRound : Next::kRound;
}

bool Convergence::in_vain(uint64_t left, uint64_t now_ns) {
  if (!throttled_ || static_cast<double>(left) < kProgress * static_cast<double>(least_)) {
    least_ = left;
    least_round_ = rounds_;
    least_ns_ = now_ns;
  }
  return rounds_ - least_round_ >= kPatientRounds && now_ns - least_ns_ > rules_.patience_ns;
}

}  // namespace snapshot
