// jitter: writes a working set at a given rate while it reads the TSC in a tight loop, and
// records what a guest that works feels of the host: the gaps (see jitter_record.h).
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cpu.h"
#include "exit.h"
#include "jitter_record.h"
#include "jitter_report.h"
#include "options.h"
#include "order.h"
#include "pace.h"
#include "payload.h"
#include "print.h"
#include "serial.h"
#include "tsc.h"
#include "working_set.h"

struct Writer {
  struct WorkingSet set;
  struct Order order;
  bool whole_pages;
  uint64_t round, position;
};

struct Timetable {
  uint64_t poll_ticks, next_poll;      // poll_ticks 0: never looks at the serial port
  uint64_t report_ticks, next_report;  // report_ticks 0: only when asked
  uint64_t end;                        // 0: never
};

static struct JitterRecord record_;

static void WriteNext(struct Writer *writer) {
  uint64_t page = OrderPage(&writer->order, writer->round, writer->position);
  volatile uint64_t *words = WorkingSetPage(&writer->set, page);
  // Never what was there: the value differs from round to round, and from page to page.
  uint64_t value = (writer->round + 1) << 32 | page;
  for (unsigned i = 0; i < (writer->whole_pages ? 512 : 1); i++) words[i] = value + i;
  if (++writer->position == writer->set.pages) {
    writer->position = 0;
    writer->round++;
  }
  record_.writes++;
}

// Prints the report; the time it takes is blind. Returns when it was over.
static uint64_t Report(uint64_t *number, uint64_t begin) {
  JitterPrintReport(&record_, ++*number, begin);
  uint64_t now = ReadTsc();
  record_.blind_ticks += now - begin;
  return now;
}

// Reads a word of every page once, or writes what it has read, and prints how long that took: what
// it costs to get a working set back, or a first write to each page. Blind, too.
static uint64_t Touch(const struct Writer *writer, bool write, uint64_t khz, uint64_t begin) {
  uint64_t sum = 0;
  for (uint64_t i = 0; i < writer->set.pages; i++) {
    volatile uint64_t *word = WorkingSetPage(&writer->set, OrderPage(&writer->order, 0, i));
    uint64_t value = *word;
    if (write) *word = value;
    sum += value;
  }
  uint64_t end = ReadTsc();
  Print("jitter: %s pages=%lu ns=%lu sum=0x%lx\n", write ? "rewrote" : "touched",
        writer->set.pages, TicksToNs(end - begin, khz), sum);
  end = ReadTsc();
  record_.blind_ticks += end - begin;
  return end;
}

static void Run(struct Writer *writer, struct Pace pace, struct Timetable times) {
  uint64_t reports = 0;
  uint64_t previous = ReadTsc();
  JitterClear(&record_, previous);
  for (;;) {
    uint64_t now = ReadTsc();
    JitterAdd(&record_, kGapWork, previous, now);
    previous = now;
    if (PaceDue(&pace, now)) WriteNext(writer);

    int command = -1;
    if (times.poll_ticks != 0 && TscReached(now, times.next_poll)) {
      command = SerialPoll();
      now = ReadTsc();
      JitterAdd(&record_, kGapPoll, previous, now);
      previous = now;
      times.next_poll = now + times.poll_ticks;
    }
    bool end = command == 'q' || (times.end != 0 && TscReached(now, times.end));
    bool report = times.report_ticks != 0 && TscReached(now, times.next_report);
    if (report) times.next_report = now + times.report_ticks;
    if (end || report || command == 'r') previous = Report(&reports, now);
    if (end) return;
    if (command == 't' || command == 'w') {
      previous = Touch(writer, command == 'w', record_.tsc_khz, now);
    }
    if (command == 'l') {
      JitterPrintEvents(&record_);
      previous = ReadTsc();
      record_.blind_ticks += previous - now;
    }
    if (command == 'c') {
      Print("jitter: cleared tsc=%lu\n", now);
      previous = ReadTsc();
      JitterClear(&record_, previous);
    }
  }
}

unsigned PayloadMain(void) {
  static const char *const kOrders[] = {"seq", "random", NULL};
  static const char *const kWrites[] = {"page", "word", NULL};
  uint64_t khz = TscKhz();
  uint64_t rate = OptionUpTo("rate", 0, 1000000000);
  unsigned order = OptionChoice("order", kOrders);
  unsigned write = OptionChoice("write", kWrites);
  struct Writer writer = {.set = WorkingSetFromOptions(), .whole_pages = write == 0};
  writer.order = OrderMake(writer.set.pages, order == 1, OptionU64("seed", 1));
  record_.magic = kJitterMagic;
  record_.tsc_khz = khz;
  record_.event_ticks = NsToTicks(OptionU64("event", 50000), khz);
  Print(
      "jitter: start gpa=0x%lx pages=%lu rate=%lu order=%s write=%s event_ticks=%lu "
      "state=0x%lx tsc_khz=%lu\n",
      writer.set.gpa, writer.set.pages, rate, kOrders[order], kWrites[write], record_.event_ticks,
      (uint64_t)&record_, khz);

  // The first round is the filling of memory by the host, not what is to be measured.
  while (writer.round == 0) WriteNext(&writer);
  uint64_t now = ReadTsc();
  uint64_t seconds = OptionUpTo("seconds", 0, 1000000) * khz * 1000;
  struct Timetable times = {
      .poll_ticks = OptionUpTo("poll", 10, 1000000) * khz,
      .next_poll = now,
      .report_ticks = OptionUpTo("report", 0, 1000000) * khz * 1000,
      .end = seconds == 0 ? 0 : now + seconds,
  };
  times.next_report = now + times.report_ticks;
  Print("jitter: filled tsc=%lu\n", now);
  Run(&writer, PaceMake(rate, khz), times);
  return kExitOk;
}
