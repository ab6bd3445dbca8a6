#include "jitter_report.h"

#include "print.h"
#include "tsc.h"

void JitterPrintReport(const struct JitterRecord *record, uint64_t number, uint64_t now) {
  uint64_t khz = record->tsc_khz, ticks = now - record->cleared_tsc;
  uint64_t ns = TicksToNs(ticks, khz);
  uint64_t working_us = TicksToNs(ticks - record->blind_ticks, khz) / 1000;
  Print(
      "jitter: report n=%lu tsc=%lu since_tsc=%lu ns=%lu iterations=%lu writes=%lu "
      "writes_per_s=%lu\n",
      number, now, record->cleared_tsc, ns, record->iterations, record->writes,
      record->writes * 1000000 / (working_us + 1));
  Print("jitter: other n=%lu polls=%lu poll_most_ns=%lu blind_ns=%lu backward=%lu events=%lu\n",
        number, record->polls, TicksToNs(record->poll_most_ticks, khz),
        TicksToNs(record->blind_ticks, khz), record->backward, record->event_count);
  for (unsigned i = 0; i < kBuckets; i++) {
    if (record->histogram[i] == 0) continue;
    uint64_t low = JitterBucketLow(i);
    Print("jitter: hist n=%lu ticks=%lu ns=%lu count=%lu\n", number, low, TicksToNs(low, khz),
          record->histogram[i]);
  }
  for (unsigned i = 0; i < kLongest && record->longest[i].ticks != 0; i++)
    Print("jitter: longest n=%lu rank=%u tsc=%lu ticks=%lu ns=%lu\n", number, i + 1,
          record->longest[i].tsc, record->longest[i].ticks,
          TicksToNs(record->longest[i].ticks, khz));
  Print("jitter: end n=%lu\n", number);
}

void JitterPrintEvents(const struct JitterRecord *record) {
  uint64_t first = record->event_count > kEvents ? record->event_count - kEvents : 0;
  Print("jitter: events first=%lu count=%lu\n", first, record->event_count);
  for (uint64_t i = first; i < record->event_count; i++) {
    struct Gap gap = record->events[i % kEvents];
    uint64_t ticks = gap.ticks & ~kGapPollFlag;
    Print("jitter: event i=%lu tsc=%lu ticks=%lu ns=%lu kind=%s\n", i, gap.tsc, ticks,
          TicksToNs(ticks, record->tsc_khz), gap.ticks & kGapPollFlag ? "poll" : "work");
  }
  Print("jitter: events end\n");
}
