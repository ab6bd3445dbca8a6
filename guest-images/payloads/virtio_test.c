#include "virtio_test.h"

#include "cpu.h"
#include "exit.h"
#include "interrupts.h"
#include "print.h"
#include "tsc.h"

enum { kVector = 0 };

int VirtioTestInterrupt(const struct VirtioTest *test) { return test->interrupts ? kVector : -1; }

struct VirtioWaiter VirtioWaiterMake(const struct VirtioTest *test, const char *device,
                                     struct Virtqueue *queue) {
  VirtqueueWantInterrupt(queue, test->interrupts);
  return (struct VirtioWaiter){test, device, queue, InterruptCount(kVector)};
}

static void CheckTime(const struct VirtioWaiter *waiter, uint64_t deadline, const char *what) {
  CpuRelax();
  if (TscReached(ReadTsc(), deadline))
    VIRTIO_TEST_FAIL("%s: no %s in time: avail=%u used=%u\n", waiter->device, what,
                     waiter->queue->avail_next, waiter->queue->used[1]);
}

uint16_t VirtioWait(struct VirtioWaiter *waiter, uint32_t *bytes_written) {
  uint16_t head;
  uint64_t deadline = ReadTsc() + waiter->test->timeout_ticks;
  for (;;) {
    // Read before the ring is looked at: an entry that is added afterwards raises it.
    uint32_t seen = InterruptCount(kVector);
    if (VirtqueueTake(waiter->queue, &head, bytes_written)) break;
    if (!waiter->test->interrupts)
      CheckTime(waiter, deadline, "used entry");
    else
      while (InterruptCount(kVector) == seen) CheckTime(waiter, deadline, "interrupt");
  }
  if (waiter->test->interrupts) VirtqueueWantInterrupt(waiter->queue, true);
  return head;
}

uint32_t VirtioWaiterInterrupts(const struct VirtioWaiter *waiter) {
  if (waiter->test->interrupts) {
    uint64_t deadline = ReadTsc() + waiter->test->timeout_ticks;
    while (InterruptCount(kVector) == waiter->interrupts_before)
      CheckTime(waiter, deadline, "interrupt at all");
  }
  return InterruptCount(kVector) - waiter->interrupts_before;
}
