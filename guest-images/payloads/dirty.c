// dirty: rewrites a working set round after round, at a given rate, and can check every page
// before it rewrites it. What must be in memory at any instant follows from one word, `step`.
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cpu.h"
#include "dirty_pattern.h"
#include "exit.h"
#include "options.h"
#include "order.h"
#include "pace.h"
#include "payload.h"
#include "print.h"
#include "serial.h"
#include "tsc.h"
#include "working_set.h"

// Alone on its page; its address is printed, so that a host can check an image of memory.
// With round = step / pages and position = step % pages, at any instant:
// - pages before `position` in the order of `round` have the content of `round`;
// - pages after it have the content of `round` - 1 (round 0: whatever was there);
// - the page at `position` is being written and may have a mixture of the two.
struct DirtyState {
  uint64_t magic;
  struct WorkingSet set;
  struct Pattern pattern;
  struct Order order;
  volatile uint64_t step;
} __attribute__((aligned(4096)));

static struct DirtyState state_;

struct Limits {
  bool verify;
  uint64_t last_step;       // 0: none
  uint64_t end_ticks;       // 0: none
  uint64_t progress_ticks;  // 0: no lines, no look at the serial port
};

_Noreturn static void ReportMismatch(uint64_t page, uint64_t round, uint64_t generation,
                                     struct PatternMismatch mismatch) {
  static const char *const kVerdicts[] = {"good", "lost", "stale", "torn"};
  const struct PatternHeader *found = (void *)WorkingSetPage(&state_.set, page);
  Print(
      "dirty: FAIL %s page=%lu gpa=0x%lx round=%lu generation=%lu word=%lu expected=0x%lx "
      "got=0x%lx\n",
      kVerdicts[mismatch.verdict], page, (uint64_t)found, round, generation, mismatch.word,
      mismatch.expected, mismatch.got);
  Print("dirty: found magic=0x%lx page=%lu generation=%lu seed=%lu step=%lu\n", found->magic,
        found->page, found->generation, found->seed, state_.step);
  Exit(kExitFailed);
}

static void VerifyPage(uint64_t page, uint64_t round) {
  uint64_t generation = PatternGeneration(&state_.pattern, page, round);
  struct PatternMismatch mismatch =
      PatternCheck(&state_.pattern, page, generation, WorkingSetPage(&state_.set, page));
  if (mismatch.verdict != kPatternGood) ReportMismatch(page, round, generation, mismatch);
}

// All pages between two steps.
static void VerifyAll(void) {
  uint64_t round = state_.step / state_.set.pages, position = state_.step % state_.set.pages;
  for (uint64_t i = 0; i < state_.set.pages; i++) {
    if (i >= position && round == 0) break;
    VerifyPage(OrderPage(&state_.order, round, i), i < position ? round : round - 1);
  }
}

// True when somebody asked for the end.
static bool Progress(uint64_t now, uint64_t ticks, uint64_t pages, uint64_t khz) {
  uint64_t ns = TicksToNs(ticks, khz);
  Print("dirty: round=%lu pages=%lu tsc=%lu pages_per_s=%lu\n", state_.step / state_.set.pages,
        state_.step, now, ns == 0 ? 0 : pages * 1000000 / (ns / 1000 + 1));
  return SerialPoll() == 'q';
}

static void Run(const struct Limits *limits, struct Pace pace, uint64_t khz) {
  uint64_t begin = ReadTsc(), last_progress = begin, last_progress_step = 0;
  uint64_t round = 0, position = 0;
  for (uint64_t step = 0; limits->last_step == 0 || step < limits->last_step; step++) {
    uint64_t now = ReadTsc();
    while (!PaceDue(&pace, now)) {
      CpuRelax();
      now = ReadTsc();
    }
    if (limits->end_ticks != 0 && TscReached(now, begin + limits->end_ticks)) return;
    if (limits->progress_ticks != 0 && TscReached(now, last_progress + limits->progress_ticks)) {
      if (Progress(now, now - last_progress, step - last_progress_step, khz)) return;
      last_progress = now;
      last_progress_step = step;
    }

    // The register and the word in memory went through the snapshot on different ways.
    if (limits->verify && state_.step != step) {
      Print("dirty: FAIL stale state: step=%lu in memory, %lu in the CPU\n", state_.step, step);
      Exit(kExitFailed);
    }
    uint64_t page = OrderPage(&state_.order, round, position);
    if (limits->verify && round > 0) VerifyPage(page, round - 1);
    PatternWrite(&state_.pattern, page, PatternGeneration(&state_.pattern, page, round),
                 WorkingSetPage(&state_.set, page));
    StoreBarrier();
    state_.step = step + 1;
    StoreBarrier();
    if (++position == state_.set.pages) {
      position = 0;
      round++;
    }
  }
}

unsigned PayloadMain(void) {
  static const char *const kOrders[] = {"seq", "random", NULL};
  uint64_t khz = TscKhz();
  uint64_t rate = OptionUpTo("rate", 0, 1000000000);
  state_.pattern.seed = OptionU64("seed", 1);
  state_.pattern.zero_percent = OptionUpTo("zero", 0, 100);
  state_.pattern.unchanged_percent = OptionUpTo("unchanged", 0, 100);
  unsigned order = OptionChoice("order", kOrders);
  state_.set = WorkingSetFromOptions();
  state_.order = OrderMake(state_.set.pages, order == 1, state_.pattern.seed);
  state_.magic = kPatternMagic;
  struct Limits limits = {
      .verify = OptionUpTo("verify", 0, 1) == 1,
      .last_step = OptionUpTo("rounds", 0, UINT32_MAX) * state_.set.pages,
      .end_ticks = OptionUpTo("seconds", 0, 1000000) * khz * 1000,
      .progress_ticks = OptionUpTo("progress", 1, 1000000) * khz * 1000,
  };
  Print(
      "dirty: start gpa=0x%lx pages=%lu rate=%lu order=%s zero=%lu unchanged=%lu seed=%lu "
      "verify=%u state=0x%lx tsc_khz=%lu\n",
      state_.set.gpa, state_.set.pages, rate, kOrders[order], state_.pattern.zero_percent,
      state_.pattern.unchanged_percent, state_.pattern.seed, limits.verify, (uint64_t)&state_, khz);

  uint64_t begin = ReadTsc();
  Run(&limits, PaceMake(rate, khz), khz);
  uint64_t ns = TicksToNs(ReadTsc() - begin, khz);
  if (limits.verify) VerifyAll();
  Print("dirty: done rounds=%lu pages=%lu verified=%s ns=%lu pages_per_s=%lu\n",
        state_.step / state_.set.pages, state_.step, limits.verify ? "yes" : "no", ns,
        state_.step * 1000000 / (ns / 1000 + 1));
  return kExitOk;
}
