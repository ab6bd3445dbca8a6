// Time: a periodic timer whose ticks are compared with the clock, so that none is lost and none
// invented; both clocks only go forward. How late a tick comes is judged by the guest's own clock.
#include <errno.h>
#include <string.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "shared.h"

static const uint64_t kPeriod_ns = 20000000;

static uint64_t Realtime(uint64_t earlier) {
  struct timespec time;
  clock_gettime(CLOCK_REALTIME, &time);
  uint64_t now = (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
  if (now < earlier)
    Fail("the wall clock went back by %llu ns", (unsigned long long)(earlier - now));
  return now;
}

void TimerWorker(void) {
  int timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
  uint64_t start = Now() + kPeriod_ns, ticks = 0, wall = 0;
  struct itimerspec times = {.it_interval.tv_nsec = (long)kPeriod_ns,
                             .it_value.tv_sec = (time_t)(start / 1000000000u),
                             .it_value.tv_nsec = (long)(start % 1000000000u)};
  if (timer < 0 || timerfd_settime(timer, TFD_TIMER_ABSTIME, &times, NULL) != 0) {
    Fail("timerfd: %s", strerror(errno));
  }
  while (Running()) {
    uint64_t before = Now(), due = start + ticks * kPeriod_ns, expired;
    if (read(timer, &expired, sizeof expired) != sizeof expired) {
      Fail("timerfd: %s", strerror(errno));
    }
    uint64_t after = Now();
    ticks += expired;
    // Ticks at start, start + period, ...: so many are due at a time.
    uint64_t least = before < start ? 0 : (before - start) / kPeriod_ns + 1;
    uint64_t most = after < start ? 0 : (after - start) / kPeriod_ns + 1;
    if (ticks < least || ticks > most) {
      Fail("%llu ticks where %llu to %llu were due", (unsigned long long)ticks,
           (unsigned long long)least, (unsigned long long)most);
    }
    NoteLate(after - (before > due ? before : due));
    wall = Realtime(wall);
    self->progress = ticks;
    if (CheckWanted()) CheckDone(ticks);
  }
}
