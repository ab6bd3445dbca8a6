// Prints the frequency of this host's TSC in kHz. The lab's machine has the same TSC, but its
// kernel would have to find out against emulated timers, which goes wrong on a busy host: a
// calibration 3 times off was seen, and the clocks of the lab and its guests with it.
#include <stdint.h>
#include <stdio.h>
#include <time.h>
#include <x86intrin.h>

struct Reading {
  int64_t ns;
  uint64_t ticks;
};

static int64_t MonotonicNs(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC_RAW, &now);
  return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

// Both clocks at one instant: of several tries the one that was interrupted least.
static struct Reading Read(void) {
  struct Reading best = {0, 0};
  int64_t narrowest_ns = INT64_MAX;
  for (int i = 0; i < 50; i++) {
    int64_t before_ns = MonotonicNs();
    uint64_t ticks = __rdtsc();
    int64_t after_ns = MonotonicNs();
    if (after_ns - before_ns < narrowest_ns) {
      narrowest_ns = after_ns - before_ns;
      best = (struct Reading){before_ns + narrowest_ns / 2, ticks};
    }
  }
  return best;
}

int main(void) {
  struct Reading start = Read();
  nanosleep(&(struct timespec){.tv_nsec = 50 * 1000 * 1000}, NULL);
  struct Reading end = Read();
  double khz = (double)(end.ticks - start.ticks) * 1e6 / (double)(end.ns - start.ns);
  printf("%.0f\n", khz);
  return 0;
}
