// What all processes of the checking workload share: the page through which they report, the
// clock they read (and distrust), and the pattern they write everywhere.
//
// One process is the coordinator (main.c), the others are workers, each with its slot. A worker
// counts its progress, verifies everything it has when a check is asked for, and never returns
// from a broken invariant.
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { kMaxWorkers = 12, kPageSize = 4096 };

struct Worker {
  const char* name;
  // Units of work that are done for good (records: durable).
  _Atomic uint64_t progress;
  // The last check that this worker has finished, and how much it looked at.
  _Atomic unsigned checked;
  _Atomic uint64_t checked_units;
};

struct Shared {
  _Atomic unsigned check;  // the check that is wanted, counted from 1
  _Atomic bool stop;
  _Atomic int failed;  // 0, 1 while the text is written, 2
  char failure[256];
  // The latest CLOCK_MONOTONIC that any process has read; none may read an earlier one after it.
  _Atomic uint64_t latest_ns;
  // The longest that a timer came after its time, by the guest's clock.
  _Atomic uint64_t late_ns;
  struct Worker workers[kMaxWorkers];
};

struct Settings {
  const char* directory;  // on the disk under test; NULL: no disk workers
  uint64_t memory_bytes;  // for each memory worker
  uint64_t rate;          // steps a second of each memory and disk worker
  uint64_t late_ns;       // a timer later than this is a failure, as is a worker that rests so long
};

extern struct Shared* shared;
extern struct Settings settings;
extern struct Worker* self;  // the slot of this process

// Reports the first failure of all and does nothing more until the workload is stopped.
_Noreturn void Fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

// CLOCK_MONOTONIC; fails where it is before what any process has read.
uint64_t Now(void);
// Sleeps and fails where the sleep was too short, or later than settings.late_ns.
void Sleep(uint64_t ns);
void NoteLate(uint64_t ns);

// A worker's loop is: while (Running()) { work }. When a check is asked for, CheckWanted() is true
// until CheckDone().
bool Running(void);
bool CheckWanted(void);
void CheckDone(uint64_t units);

// Random numbers, the same for the same seed (splitmix64).
uint64_t Next(uint64_t* state);
// Fills or compares `words` words with the pattern of `seed`.
void FillPattern(uint64_t* data, size_t words, uint64_t seed);
bool IsPattern(const uint64_t* data, size_t words, uint64_t seed);
bool IsZero(const uint64_t* data, size_t words);
uint64_t Sum(const uint64_t* data, size_t words);

// The workers.
void MemoryWorker(unsigned number);
void DiskWorker(unsigned number);
void LinkClient(int in, int out);
void LinkServer(int in, int out);
void TimerWorker(void);

// Looks at the log of a disk worker as a file, and prints what it found; an exit status.
int VerifyLog(const char* path);
