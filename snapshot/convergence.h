// How a live snapshot goes on after each look at what is left to copy: with another round, with one
// for which the guest is held, or with the pause. No clock and no guest in here: the looks say it.
#pragma once

#include <cstdint>

namespace snapshot {

class Convergence {
 public:
  enum class Next {
    kRound,
    kThrottledRound,   // the guest is held while pages are copied: it writes faster than that
    kPause,            // what is left fits into it
    kPauseAtAnyPrice,  // it does not, and never would
  };
  struct Rules {
    // The first look is at all of memory: too much for a pause, or not there yet.
    bool full = false;
    // A guest that writes too fast is stopped at once, not throttled before.
    bool stop_hot = false;
    // Throttled rounds that leave no less for so long are in vain.
    uint64_t patience_ns = 0;
  };

  explicit Convergence(const Rules& rules) : rules_(rules) {}

  // After a look, at `now_ns` of any clock, that found `left` pages, where `limit` fit into a
  // pause. A pause that is given up is followed by another look.
  Next next(uint64_t left, uint64_t limit, uint64_t now_ns);

 private:
  bool in_vain(uint64_t left, uint64_t now_ns);

  Rules rules_;
  uint64_t rounds_ = 0;
  uint64_t before_ = 0;       // left at the last look
  uint64_t hot_ = 0;          // rounds that left almost as much as they copied
  uint64_t shortenings_ = 0;  // rounds for the sake of a shorter pause
  bool shortening_ = false;   // the last one was such
  bool throttled_ = false;
  uint64_t least_ = 0, least_round_ = 0, least_ns_ = 0;  // left by a throttled round, and when
};

}  // namespace snapshot
