#include "virtqueue.h"

#include "cpu.h"
#include "exit.h"
#include "memory.h"
#include "print.h"

enum {
  kFlagNext = 1,
  kFlagWrite = 2,
  kFlagIndirect = 4,
  kAvailNoInterrupt = 1,
  kUsedNoNotify = 1,
  kUsedElementHalfWords = 4,
};

static void *AllocateZeroed(uint64_t bytes) {
  uint64_t gpa = MemoryAllocate(bytes, kPageBytes);
  if (gpa == 0) FAIL_USAGE("virtqueue: no RAM left for %lu bytes\n", bytes);
  uint64_t *words = MemoryPointer(gpa);
  for (uint64_t i = 0; i < bytes / 8; i++) words[i] = 0;
  return words;
}

static uint64_t WholePages(uint64_t bytes) {
  return (bytes + kPageBytes - 1) & ~(uint64_t)(kPageBytes - 1);
}

static volatile uint16_t *UsedEvent(const struct Virtqueue *queue) {
  return &queue->avail[2 + queue->size];
}

static uint16_t AvailEvent(const struct Virtqueue *queue) {
  return queue->used[2 + queue->size * kUsedElementHalfWords];
}

void VirtqueueInit(struct Virtqueue *queue, uint16_t size, bool indirect, bool event_idx) {
  *queue = (struct Virtqueue){.size = size, .indirect = indirect, .event_idx = event_idx};
  queue->descriptors = AllocateZeroed(WholePages(size * sizeof *queue->descriptors));
  queue->avail = AllocateZeroed(WholePages(6 + 2 * (uint64_t)size));
  queue->used = AllocateZeroed(WholePages(6 + 8 * (uint64_t)size));
  queue->tables =
      AllocateZeroed(WholePages((uint64_t)size * kVirtqueueMaxChain * sizeof *queue->tables));
  queue->chain_length = AllocateZeroed(WholePages(size * sizeof *queue->chain_length));
  for (uint16_t i = 0; i < size; i++) queue->descriptors[i].next = i + 1;
  queue->free_count = size;
  VirtqueueWantInterrupt(queue, false);
}

bool VirtqueueHasRoom(const struct Virtqueue *queue, unsigned buffers) {
  return queue->free_count >= (queue->indirect ? 1 : buffers);
}

static void Fill(struct VirtqueueDescriptor *descriptor, const struct VirtqueueBuffer *buffer,
                 bool last) {
  descriptor->gpa = buffer->gpa;
  descriptor->bytes = buffer->bytes;
  descriptor->flags = (buffer->device_writes ? kFlagWrite : 0) | (last ? 0 : kFlagNext);
}

uint16_t VirtqueueAdd(struct Virtqueue *queue, const struct VirtqueueBuffer *buffers,
                      unsigned count) {
  uint16_t head = queue->free_head;
  if (queue->indirect) {
    struct VirtqueueDescriptor *table = &queue->tables[head * kVirtqueueMaxChain];
    for (unsigned i = 0; i < count; i++) {
      Fill(&table[i], &buffers[i], i + 1 == count);
      table[i].next = (uint16_t)(i + 1);
    }
    struct VirtqueueDescriptor *descriptor = &queue->descriptors[head];
    queue->free_head = descriptor->next;
    descriptor->gpa = (uint64_t)table;
    descriptor->bytes = (uint32_t)(count * sizeof *table);
    descriptor->flags = kFlagIndirect;
    count = 1;
  } else {
    for (unsigned i = 0; i < count; i++) {
      struct VirtqueueDescriptor *descriptor = &queue->descriptors[queue->free_head];
      Fill(descriptor, &buffers[i], i + 1 == count);
      queue->free_head = descriptor->next;
    }
  }
  queue->free_count -= count;
  queue->chain_length[head] = (uint16_t)count;
  queue->avail[2 + queue->avail_next % queue->size] = head;
  queue->avail_next++;
  StoreBarrier();  // the entry before the index that publishes it
  queue->avail[1] = queue->avail_next;
  return head;
}

void VirtqueueKick(struct Virtqueue *queue) {
  __atomic_thread_fence(__ATOMIC_SEQ_CST);  // the index before we look whether it was awaited
  uint16_t added = queue->avail_next - queue->avail_notified;
  if (added == 0) return;
  bool wanted = queue->event_idx ? (uint16_t)(queue->avail_next - AvailEvent(queue) - 1) < added
                                 : !(queue->used[0] & kUsedNoNotify);
  queue->avail_notified = queue->avail_next;
  if (!wanted) return;
  queue->kicks++;
  *queue->notify = queue->notify_value;
}

static void Free(struct Virtqueue *queue, uint16_t head) {
  uint16_t tail = head;
  for (uint16_t i = 1; i < queue->chain_length[head]; i++) tail = queue->descriptors[tail].next;
  queue->descriptors[tail].next = queue->free_head;
  queue->free_head = head;
  queue->free_count += queue->chain_length[head];
  queue->chain_length[head] = 0;
}

bool VirtqueueTake(struct Virtqueue *queue, uint16_t *head, uint32_t *bytes_written) {
  if (queue->used[1] == queue->used_next) return false;
  const volatile struct VirtqueueUsedElement *element =
      (const volatile struct VirtqueueUsedElement *)&queue->used[2] +
      queue->used_next % queue->size;
  uint32_t id = element->id;
  *bytes_written = element->bytes;
  if (id >= queue->size || queue->chain_length[id] == 0) {
    Print("virtqueue: FAIL used entry %u names descriptor %u, which is not in flight\n",
          queue->used_next, id);
    Exit(kExitFailed);
  }
  queue->used_next++;
  *head = (uint16_t)id;
  Free(queue, *head);
  return true;
}

void VirtqueueWantInterrupt(struct Virtqueue *queue, bool wanted) {
  // With event_idx the flag is ignored, and an index just passed comes round in 65,536 entries.
  if (queue->event_idx)
    *UsedEvent(queue) = wanted ? queue->used_next : (uint16_t)(queue->used_next - 1);
  else
    queue->avail[0] = wanted ? 0 : kAvailNoInterrupt;
  __atomic_thread_fence(__ATOMIC_SEQ_CST);  // before the caller's look
}
