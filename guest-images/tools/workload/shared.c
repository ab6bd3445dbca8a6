#include "shared.h"

#include <stdarg.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

struct Shared* shared;
struct Settings settings = {.memory_bytes = 8 << 20, .rate = 200, .late_ns = 30000000000ull};
struct Worker* self;

_Noreturn void Fail(const char* format, ...) {
  if (atomic_exchange(&shared->failed, 1) == 0) {
    int length = snprintf(shared->failure, sizeof shared->failure, "%s: ", self->name);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(shared->failure + length, sizeof shared->failure - (size_t)length, format, arguments);
    va_end(arguments);
    shared->failed = 2;
  }
  while (!shared->stop) nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL);
  _exit(1);
}

uint64_t Now(void) {
  uint64_t latest = shared->latest_ns;
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  uint64_t now = (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
  if (now < latest) {
    Fail("the clock went back by %llu ns", (unsigned long long)(latest - now));
  }
  while (now > latest && !atomic_compare_exchange_weak(&shared->latest_ns, &latest, now)) {
  }
  return now;
}

void NoteLate(uint64_t ns) {
  uint64_t known = shared->late_ns;
  while (ns > known && !atomic_compare_exchange_weak(&shared->late_ns, &known, ns)) {
  }
  if (ns > settings.late_ns) Fail("a timer was late by %llu ns", (unsigned long long)ns);
}

void Sleep(uint64_t ns) {
  uint64_t begin = Now();
  struct timespec time = {.tv_sec = (time_t)(ns / 1000000000u),
                          .tv_nsec = (long)(ns % 1000000000u)};
  nanosleep(&time, NULL);
  uint64_t slept = Now() - begin;
  if (slept < ns) {
    Fail("slept %llu ns of %llu", (unsigned long long)slept, (unsigned long long)ns);
  }
  NoteLate(slept - ns);
}

bool Running(void) { return !shared->stop; }

bool CheckWanted(void) { return shared->check != self->checked; }

void CheckDone(uint64_t units) {
  self->checked_units = units;
  self->checked = shared->check;
}

uint64_t Next(uint64_t* state) {
  uint64_t z = *state += 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}

void FillPattern(uint64_t* data, size_t words, uint64_t seed) {
  for (size_t i = 0; i < words; i++) data[i] = Next(&seed);
}

bool IsPattern(const uint64_t* data, size_t words, uint64_t seed) {
  for (size_t i = 0; i < words; i++) {
    if (data[i] != Next(&seed)) return false;
  }
  return true;
}

bool IsZero(const uint64_t* data, size_t words) {
  for (size_t i = 0; i < words; i++) {
    if (data[i] != 0) return false;
  }
  return true;
}

uint64_t Sum(const uint64_t* data, size_t words) {
  uint64_t sum = words;
  for (size_t i = 0; i < words; i++) sum = (sum ^ data[i]) * 0x100000001b3u ^ sum >> 29;
  return sum;
}
