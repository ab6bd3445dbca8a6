// Lets something happen at a given rate, by the TSC. What was missed by more than 100 ms (the
// VM stood still, or was restored elsewhere) is not caught up, so that a pause is not
// followed by a burst.
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct Pace {
  uint64_t interval_ticks;  // 0: always due
  uint64_t most_late_ticks;
  uint64_t due;
};

struct Pace PaceMake(uint64_t per_second, uint64_t tsc_khz);

// True when the next one is due at `now`, and counts it.
bool PaceDue(struct Pace *pace, uint64_t now);
