// What the tests of payload `virtio` share: its options, and waiting for a request to come
// back, by looking at the used ring or by MSI-X.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "virtio_pci.h"

struct VirtioTest {
  uint64_t ops;
  uint16_t queue_depth;
  uint32_t bytes;     // of a block request
  unsigned buffers;   // for each block request in flight, used in turn
  uint64_t passes;    // of reading; 0: until 'q' comes
  uint64_t features;  // wanted of the ring: indirect descriptors, event index
  bool interrupts;
  bool write;
  unsigned device;  // which of the block devices
  uint64_t seed;
  uint64_t khz;
  uint64_t timeout_ticks;
};

enum VirtioTestResult { kTestPassed, kTestAbsent };

// Each prints what it found and did. Anything wrong ends the payload with kExitFailed.
enum VirtioTestResult VirtioTestBlock(const struct VirtioTest *test);
// Numbered records, each written to one device and then to the next one, until 'q' comes; then what
// both hold is compared with what was written. A host that sees the disks at one instant finds the
// second one at most one record behind.
enum VirtioTestResult VirtioTestBlockPair(const struct VirtioTest *test);
enum VirtioTestResult VirtioTestRng(const struct VirtioTest *test);

struct VirtioWaiter {
  const struct VirtioTest *test;
  const char *device;
  struct Virtqueue *queue;
  uint32_t interrupts_before;  // what had come for other devices
};

// Before the first request: with irq=1 every used entry is to raise an interrupt.
struct VirtioWaiter VirtioWaiterMake(const struct VirtioTest *test, const char *device,
                                     struct Virtqueue *queue);

// The vector to give to VirtioSetUpQueue, negative for none.
int VirtioTestInterrupt(const struct VirtioTest *test);

// One request that came back.
uint16_t VirtioWait(struct VirtioWaiter *waiter, uint32_t *bytes_written);

// How many interrupts came; with irq=1 there must have been one.
uint32_t VirtioWaiterInterrupts(const struct VirtioWaiter *waiter);

#define VIRTIO_TEST_FAIL(...) \
  do {                        \
    Print("virtio: FAIL ");   \
    Print(__VA_ARGS__);       \
    Exit(kExitFailed);        \
  } while (0)
