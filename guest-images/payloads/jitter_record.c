#include "jitter_record.h"

unsigned JitterBucket(uint64_t ticks) {
  if (ticks < kSubBuckets) return (unsigned)ticks;
  unsigned exponent = 63 - (unsigned)__builtin_clzll(ticks);  // 3 or more
  return (exponent - 2) * kSubBuckets + (unsigned)(ticks >> (exponent - 3) & (kSubBuckets - 1));
}

uint64_t JitterBucketLow(unsigned bucket) {
  if (bucket < kSubBuckets) return bucket;
  return (uint64_t)(kSubBuckets + bucket % kSubBuckets) << (bucket / kSubBuckets - 1);
}

void JitterClear(struct JitterRecord *record, uint64_t now) {
  record->cleared_tsc = now;
  record->iterations = record->writes = record->polls = 0;
  record->poll_most_ticks = record->blind_ticks = record->backward = record->event_count = 0;
  for (unsigned i = 0; i < kLongest; i++) record->longest[i] = (struct Gap){0, 0};
  for (unsigned i = 0; i < kBuckets; i++) record->histogram[i] = 0;
}

static void InsertLongest(struct JitterRecord *record, struct Gap gap) {
  unsigned i = kLongest - 1;
  for (; i > 0 && record->longest[i - 1].ticks < gap.ticks; i--)
    record->longest[i] = record->longest[i - 1];
  record->longest[i] = gap;
}

void JitterAdd(struct JitterRecord *record, enum GapKind kind, uint64_t begin, uint64_t end) {
  uint64_t ticks = end - begin;
  if ((int64_t)ticks < 0) {
    record->backward++;
    return;
  }
  if (kind == kGapPoll) {
    record->polls++;
    if (ticks > record->poll_most_ticks) record->poll_most_ticks = ticks;
  } else {
    record->iterations++;
    record->histogram[JitterBucket(ticks)]++;
    if (ticks > record->longest[kLongest - 1].ticks)
      InsertLongest(record, (struct Gap){begin, ticks});
  }
  if (ticks >= record->event_ticks)
    record->events[record->event_count++ % kEvents] =
        (struct Gap){begin, kind == kGapPoll ? ticks | kGapPollFlag : ticks};
}
