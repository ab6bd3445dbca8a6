// The driver's side of a virtio split virtqueue (virtio 1.2, 2.7): chains of buffers go in,
// direct or as an indirect table, and come back in any order. Used by one loop only.
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum { kVirtqueueMaxChain = 8 };

struct VirtqueueDescriptor {
  uint64_t gpa;
  uint32_t bytes;
  uint16_t flags;
  uint16_t next;
};
_Static_assert(sizeof(struct VirtqueueDescriptor) == 16, "layout is virtio's");

struct VirtqueueUsedElement {
  uint32_t id;
  uint32_t bytes;
};

struct Virtqueue {
  uint16_t size;
  bool indirect, event_idx;
  struct VirtqueueDescriptor *descriptors;
  volatile uint16_t *avail;            // flags, idx, ring[size], used_event
  volatile uint16_t *used;             // flags, idx, ring[size] of elements, avail_event
  struct VirtqueueDescriptor *tables;  // kVirtqueueMaxChain for each head
  uint16_t *chain_length;              // of each head in flight, 0: not a head
  uint16_t free_head, free_count;
  uint16_t avail_next, avail_notified;
  uint16_t used_next;
  volatile uint16_t *notify;
  uint16_t notify_value;
  uint64_t kicks;  // notifications sent
};

struct VirtqueueBuffer {
  uint64_t gpa;
  uint32_t bytes;
  bool device_writes;
};

// Allocates the rings. The caller tells the device about them and sets `notify`.
void VirtqueueInit(struct Virtqueue *queue, uint16_t size, bool indirect, bool event_idx);

// True when a chain of that many buffers would go in.
bool VirtqueueHasRoom(const struct Virtqueue *queue, unsigned buffers);

// Makes the chain available and returns its head, the token with which it comes back.
// Precondition: there is room; buffers the device writes come last.
uint16_t VirtqueueAdd(struct Virtqueue *queue, const struct VirtqueueBuffer *buffers,
                      unsigned count);

// Notifies the device of what was added since, if it wants to know.
void VirtqueueKick(struct Virtqueue *queue);

// False when nothing came back. A token that is not in flight is the device's fault: ends
// the payload with kExitFailed.
bool VirtqueueTake(struct Virtqueue *queue, uint16_t *head, uint32_t *bytes_written);

// Asks for an interrupt at the next used element (with event_idx: only at that one), or for
// none. One that is there already raises none: look at the queue afterwards.
void VirtqueueWantInterrupt(struct Virtqueue *queue, bool wanted);
