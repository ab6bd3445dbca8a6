// What payload `jitter` saw: a histogram of gaps, the longest ones, and a ring of all that
// reached a threshold. One fixed structure in guest memory (its address is printed), so that
// a host may read it without asking the guest. Written only by the payload's loop.
//
// A gap is the difference between two consecutive reads of the TSC in that loop, in ticks.
// Between the two lies the recording of the gap before and
// - kGapWork: at most one write to the working set (a page or a word of it);
// - kGapPoll: that and one look at the serial port, which leaves the guest once or twice.
// So nothing that happens to the guest falls between two gaps, except while it prints; that
// time is counted in blind_ticks. Poll gaps are kept out of the histogram and of the longest.
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum { kSubBuckets = 8, kBuckets = 62 * kSubBuckets, kLongest = 16, kEvents = 8192 };

enum GapKind { kGapWork, kGapPoll };

struct Gap {
  uint64_t tsc;    // when it began
  uint64_t ticks;  // bit 63: kGapPoll
};
#define kGapPollFlag (1ull << 63)

struct JitterRecord {
  uint64_t magic;
  uint64_t tsc_khz;
  uint64_t cleared_tsc;          // everything below counts from here on
  uint64_t event_ticks;          // threshold of the ring
  uint64_t iterations;           // work gaps
  uint64_t writes;               // to the working set
  uint64_t polls;                // poll gaps
  uint64_t poll_most_ticks;      // the longest poll gap
  uint64_t blind_ticks;          // spent printing
  uint64_t backward;             // times the TSC went back; such a gap is not counted elsewhere
  uint64_t event_count;          // ever entered in the ring; event i is at i % kEvents
  struct Gap longest[kLongest];  // work gaps, the longest first
  uint64_t histogram[kBuckets];
  struct Gap events[kEvents];
} __attribute__((aligned(4096)));

#define kJitterMagic 0x72657474696a6d6dull  // "mmjitter" in memory

void JitterClear(struct JitterRecord *record, uint64_t now);
void JitterAdd(struct JitterRecord *record, enum GapKind kind, uint64_t begin, uint64_t end);

// Buckets: 0 to 7 hold exactly that many ticks; above, 8 buckets to each power of two.
unsigned JitterBucket(uint64_t ticks);
uint64_t JitterBucketLow(unsigned bucket);
