// The entropy device (virtio 1.2, 5.4): bytes arrive, no more than asked for, and are not
// the same twice.
#include "bytes.h"
#include "exit.h"
#include "memory.h"
#include "print.h"
#include "tsc.h"
#include "virtio_test.h"

enum { kRequestBytes = 64, kQueueSize = 64, kGuard = 0xa5 };

static void CheckAnswer(const uint8_t *buffer, const uint8_t *before, uint32_t bytes) {
  if (bytes == 0 || bytes > kRequestBytes)
    VIRTIO_TEST_FAIL("rng: %u bytes for a request of %u\n", bytes, kRequestBytes);
  for (unsigned i = bytes; i < kPageBytes; i++)
    if (buffer[i] != kGuard)
      VIRTIO_TEST_FAIL("rng: byte %u changed, only %u were written\n", i, bytes);
  // 16 equal bytes by chance: 2^-128.
  if (bytes >= 16 && memcmp(buffer, before, 16) == 0)
    VIRTIO_TEST_FAIL("rng: the same bytes twice\n");
}

enum VirtioTestResult VirtioTestRng(const struct VirtioTest *test) {
  struct VirtioDevice device;
  struct Virtqueue queue;
  if (!VirtioFind(kVirtioRng, 0, &device)) return kTestAbsent;
  VirtioStart(&device, test->features);
  VirtioSetUpQueue(&device, 0, kQueueSize, VirtioTestInterrupt(test), &queue);
  VirtioGo(&device);
  struct VirtioWaiter waiter = VirtioWaiterMake(test, "rng", &queue);

  uint64_t gpa = MemoryAllocate(kPageBytes, kPageBytes);
  if (gpa == 0) FAIL_USAGE("virtio: no RAM left for a buffer\n");
  uint8_t *buffer = MemoryPointer(gpa);
  uint8_t before[16] = {0};
  uint64_t total = 0;
  for (uint64_t i = 0; i < test->ops; i++) {
    memset(buffer, kGuard, kPageBytes);
    struct VirtqueueBuffer whole = {gpa, kRequestBytes, true};
    VirtqueueAdd(&queue, &whole, 1);
    VirtqueueKick(&queue);
    uint32_t bytes;
    VirtioWait(&waiter, &bytes);
    CheckAnswer(buffer, before, bytes);
    memcpy(before, buffer, sizeof before);
    total += bytes;
  }
  Print(
      "virtio: rng slot=%u offered=0x%lx features=0x%lx queue=%u requests=%lu bytes=%lu "
      "kicks=%lu interrupts=%u ok\n",
      device.pci.slot, device.offered, device.features, queue.size, test->ops, total, queue.kicks,
      VirtioWaiterInterrupts(&waiter));
  VirtioReset(&device);
  return kTestPassed;
}
