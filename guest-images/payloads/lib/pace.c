#include "pace.h"

#include "cpu.h"
#include "tsc.h"

struct Pace PaceMake(uint64_t per_second, uint64_t tsc_khz) {
  return (struct Pace){
      .interval_ticks = per_second == 0 ? 0 : tsc_khz * 1000 / per_second,
      .most_late_ticks = NsToTicks(100000000, tsc_khz),
      .due = ReadTsc(),
  };
}

bool PaceDue(struct Pace *pace, uint64_t now) {
  if (pace->interval_ticks == 0) return true;
  int64_t late = (int64_t)(now - pace->due);
  bool went_back = late < -(int64_t)pace->interval_ticks;
  if (late < 0 && !went_back) return false;
  if (went_back || late > (int64_t)pace->most_late_ticks) pace->due = now;
  pace->due += pace->interval_ticks;
  return true;
}
