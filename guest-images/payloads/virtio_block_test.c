// The block device (virtio 1.2, 5.2): a pattern is written to places all over the disk with
// several requests in flight, flushed, read back into other memory and compared, as often as
// asked for; then the answers that must be errors. Or a pair of devices, written in turn.
#include "bytes.h"
#include "cpu.h"
#include "exit.h"
#include "memory.h"
#include "mix.h"
#include "order.h"
#include "print.h"
#include "serial.h"
#include "tsc.h"
#include "virtio_test.h"

enum {
  kSectorBytes = 512,
  kQueueSize = 256,
  kMaxDepth = 64,
  kChain = 4,  // header, two halves of the data, status

  kTypeIn = 0,
  kTypeOut = 1,
  kTypeFlush = 4,
  kTypeGetId = 8,
  kIdBytes = 20,

  kStatusOk = 0,
  kStatusIoError = 1,
  kStatusNone = 0xa5,
};

#define kFeatureReadOnly (1ull << 5)
#define kFeatureFlush (1ull << 9)

struct Header {
  uint32_t type, reserved;
  uint64_t sector;
};

// A request in flight; `status` and `header` are where the device sees them.
struct Slot {
  struct Header header;
  uint8_t status;
  bool busy;
  uint16_t head;
  uint64_t place;
  uint8_t *data, *buffers;  // the one in use; test->buffers of them
  unsigned turn;
};

struct Disk {
  const struct VirtioTest *test;
  struct VirtioDevice device;
  struct Virtqueue queue;
  struct VirtioWaiter waiter;
  uint64_t sectors, places;  // a place: test->bytes of the disk
  struct Order order;
  uint64_t transferred;  // requests that are complete, of the transfer at hand
  struct Slot slots[kMaxDepth];
};

static struct Disk disk_, disk_pair_[2];

static uint64_t PatternWord(const struct Disk *disk, uint64_t place, uint64_t word) {
  return Mix(disk->test->seed + (place << 20) + word);
}

static void FillSlot(const struct Disk *disk, struct Slot *slot) {
  uint64_t *words = (uint64_t *)slot->data;
  for (uint64_t i = 0; i < disk->test->bytes / 8; i++) words[i] = PatternWord(disk, slot->place, i);
}

static void CompareSlot(const struct Disk *disk, const struct Slot *slot) {
  const uint64_t *words = (const uint64_t *)slot->data;
  for (uint64_t i = 0; i < disk->test->bytes / 8; i++) {
    uint64_t expected = PatternWord(disk, slot->place, i);
    if (words[i] != expected)
      VIRTIO_TEST_FAIL("blk: sector %lu byte %lu: expected 0x%lx, read 0x%lx\n",
                       slot->header.sector, i * 8, expected, words[i]);
  }
}

static void Submit(struct Disk *disk, struct Slot *slot, uint32_t type, uint64_t sector,
                   uint32_t bytes) {
  slot->header = (struct Header){type, 0, sector};
  slot->status = kStatusNone;
  slot->busy = true;
  bool device_writes = type == kTypeIn || type == kTypeGetId;
  struct VirtqueueBuffer chain[kChain] = {{(uint64_t)&slot->header, sizeof slot->header, false}};
  unsigned count = 1;
  if (bytes > 0) {
    uint32_t half = bytes >= 2 * kSectorBytes ? bytes / 2 : bytes;
    chain[count++] = (struct VirtqueueBuffer){(uint64_t)slot->data, half, device_writes};
    if (half < bytes)
      chain[count++] =
          (struct VirtqueueBuffer){(uint64_t)slot->data + half, bytes - half, device_writes};
  }
  chain[count++] = (struct VirtqueueBuffer){(uint64_t)&slot->status, 1, true};
  slot->head = VirtqueueAdd(&disk->queue, chain, count);
}

static struct Slot *Complete(struct Disk *disk, uint8_t expected_status) {
  uint32_t bytes;
  uint16_t head = VirtioWait(&disk->waiter, &bytes);
  struct Slot *slot = disk->slots;
  while (!slot->busy || slot->head != head) slot++;  // in flight, VirtqueueTake made sure
  slot->busy = false;
  if (slot->status != expected_status)
    VIRTIO_TEST_FAIL("blk: request type %u sector %lu: status 0x%x, expected 0x%x\n",
                     slot->header.type, slot->header.sector, slot->status, expected_status);
  uint32_t data = slot->header.type == kTypeIn ? disk->test->bytes : 0;
  if (expected_status == kStatusOk && slot->header.type != kTypeGetId && bytes != data + 1)
    VIRTIO_TEST_FAIL("blk: request type %u sector %lu: used length %u, expected %u\n",
                     slot->header.type, slot->header.sector, bytes, data + 1);
  return slot;
}

static struct Slot *Single(struct Disk *disk, uint32_t type, uint64_t sector, uint32_t bytes,
                           uint8_t expected_status) {
  Submit(disk, &disk->slots[0], type, sector, bytes);
  VirtqueueKick(&disk->queue);
  return Complete(disk, expected_status);
}

// All places of the run, `type` In or Out, up to the queue depth in flight: again and again until
// `passes` are done, or with 0 until 'q' has come when one is begun. Returns the ticks it took.
static uint64_t Transfer(struct Disk *disk, uint32_t type, uint64_t passes) {
  const struct VirtioTest *test = disk->test;
  uint64_t begin = ReadTsc(), submitted = 0, end = passes == 0 ? UINT64_MAX : passes * test->ops;
  for (disk->transferred = 0; disk->transferred < end; disk->transferred++) {
    for (unsigned i = 0; i < test->queue_depth && submitted < end; i++) {
      struct Slot *slot = &disk->slots[i];
      if (slot->busy || !VirtqueueHasRoom(&disk->queue, kChain)) continue;
      slot->place = OrderPage(&disk->order, 0, submitted++ % test->ops);
      slot->data = slot->buffers + (uint64_t)(slot->turn++ % test->buffers) * test->bytes;
      if (type == kTypeOut)
        FillSlot(disk, slot);
      else
        memset(slot->data, kStatusNone, test->bytes);
      Submit(disk, slot, type, slot->place * (test->bytes / kSectorBytes), test->bytes);
      if (passes == 0 && submitted % test->ops == 0 && SerialPoll() == 'q') end = submitted;
    }
    VirtqueueKick(&disk->queue);
    struct Slot *slot = Complete(disk, kStatusOk);
    if (type == kTypeIn) CompareSlot(disk, slot);
  }
  return ReadTsc() - begin;
}

static void CheckErrors(struct Disk *disk) {
  uint32_t bytes = disk->test->bytes;
  Single(disk, kTypeIn, disk->sectors, bytes, kStatusIoError);
  Single(disk, kTypeIn, UINT64_MAX - 1, bytes, kStatusIoError);
  if (disk->device.features & kFeatureReadOnly)
    Single(disk, kTypeOut, 0, bytes, kStatusIoError);
  else if (disk->test->write)
    Single(disk, kTypeOut, disk->sectors - bytes / kSectorBytes + 1, bytes, kStatusIoError);
}

static bool Open(struct Disk *disk, const struct VirtioTest *test) {
  disk->test = test;
  if (!VirtioFind(kVirtioBlock, test->device, &disk->device)) return false;
  VirtioStart(&disk->device, test->features | kFeatureReadOnly | kFeatureFlush);
  VirtioSetUpQueue(&disk->device, 0, kQueueSize, VirtioTestInterrupt(test), &disk->queue);
  VirtioGo(&disk->device);
  disk->waiter = VirtioWaiterMake(test, "blk", &disk->queue);

  const volatile uint32_t *capacity = (const volatile uint32_t *)disk->device.config;
  if (capacity == NULL) VIRTIO_TEST_FAIL("blk: no device configuration\n");
  disk->sectors = capacity[0] | (uint64_t)capacity[1] << 32;
  disk->places = disk->sectors / (test->bytes / kSectorBytes);
  if (disk->places < test->ops)
    FAIL_USAGE("virtio: disk of %lu sectors is too small for ops=%lu of %u bytes\n", disk->sectors,
               test->ops, test->bytes);
  disk->order = OrderMake(disk->places, true, test->seed);
  uint64_t slot_bytes = (uint64_t)test->bytes * test->buffers;
  uint64_t gpa = MemoryAllocate(slot_bytes * test->queue_depth, kPageBytes);
  if (gpa == 0)
    FAIL_USAGE("virtio: no RAM left for %u buffers\n", test->queue_depth * test->buffers);
  for (unsigned i = 0; i < test->queue_depth; i++)
    disk->slots[i].data = disk->slots[i].buffers = MemoryPointer(gpa + i * slot_bytes);
  return true;
}

static void PrintIdentity(struct Disk *disk) {
  char id[kIdBytes + 1] = {0};
  memcpy(id, Single(disk, kTypeGetId, 0, kIdBytes, kStatusOk)->data, kIdBytes);
  Print("virtio: blk slot=%u sectors=%lu offered=0x%lx features=0x%lx queue=%u serial=\"%s\"\n",
        disk->device.pci.slot, disk->sectors, disk->device.offered, disk->device.features,
        disk->queue.size, id);
}

enum VirtioTestResult VirtioTestBlock(const struct VirtioTest *test) {
  struct Disk *disk = &disk_;
  if (!Open(disk, test)) return kTestAbsent;
  PrintIdentity(disk);
  bool writable = !(disk->device.features & kFeatureReadOnly);
  if (test->write && writable) {
    uint64_t write_ns = TicksToNs(Transfer(disk, kTypeOut, 1), test->khz);
    if (disk->device.features & kFeatureFlush) Single(disk, kTypeFlush, 0, 0, kStatusOk);
    Print("virtio: blk written=%lu bytes=%u ns=%lu\n", test->ops, test->bytes, write_ns);
  }
  uint64_t read_ns = TicksToNs(Transfer(disk, kTypeIn, test->passes), test->khz);
  Print("virtio: blk verified=%lu bytes=%u ns=%lu\n", disk->transferred, test->bytes, read_ns);
  CheckErrors(disk);
  Print("virtio: blk kicks=%lu interrupts=%u ok\n", disk->queue.kicks,
        VirtioWaiterInterrupts(&disk->waiter));
  VirtioReset(&disk->device);
  return kTestPassed;
}

// Record `number` of a pair: its number, then a pattern of it.
static void FillRecord(struct Slot *slot, const struct Disk *disk, uint64_t number) {
  slot->place = number;
  FillSlot(disk, slot);
  *(uint64_t *)slot->data = number;
}

static void TransferRecord(struct Disk *disk, uint32_t type, uint64_t number) {
  uint64_t place = number % disk->test->ops;
  Single(disk, type, place * (disk->test->bytes / kSectorBytes), disk->test->bytes, kStatusOk);
}

static void CompareRecords(struct Disk *disk, unsigned device, uint64_t last) {
  struct Slot *slot = &disk->slots[0];
  uint64_t ops = disk->test->ops, first = last < ops ? 1 : last - ops + 1;
  for (uint64_t number = first; number <= last; number++) {
    memset(slot->data, kStatusNone, disk->test->bytes);
    TransferRecord(disk, kTypeIn, number);
    slot->place = number;
    uint64_t got = *(uint64_t *)slot->data;
    *(uint64_t *)slot->data = PatternWord(disk, number, 0);
    if (got != number)
      VIRTIO_TEST_FAIL("blk %u: record %lu where %lu is expected\n", device, got, number);
    CompareSlot(disk, slot);
  }
}

enum VirtioTestResult VirtioTestBlockPair(const struct VirtioTest *test) {
  struct VirtioTest tests[2] = {*test, *test};
  tests[1].device++;
  for (unsigned i = 0; i < 2; i++)
    if (!Open(&disk_pair_[i], &tests[i])) return kTestAbsent;
  Print("virtio: pair records=%lu bytes=%u\n", test->ops, test->bytes);
  uint64_t number = 0;
  do {
    number++;
    for (unsigned i = 0; i < 2; i++) {
      FillRecord(&disk_pair_[i].slots[0], &disk_pair_[i], number);
      TransferRecord(&disk_pair_[i], kTypeOut, number);
    }
  } while (number % test->queue_depth != 0 || SerialPoll() != 'q');
  for (unsigned i = 0; i < 2; i++) CompareRecords(&disk_pair_[i], test->device + i, number);
  Print("virtio: pair last=%lu ok\n", number);
  for (unsigned i = 0; i < 2; i++) VirtioReset(&disk_pair_[i].device);
  return kTestPassed;
}
