// A split virtqueue, device side (virtio 1.2, section 2.7): descriptor table, avail ring, used
// ring, indirect descriptors and event index.
//
// Owned by the transport, used by one device under its lock. Everything in the rings is written by
// the guest and may change while it is read: each field is read once, checked, then used. An error
// from any function means that the driver broke the rules; the device then stops until it is reset.
#pragma once

#include <cstdint>
#include <vector>

#include "vmm/base/result.h"
#include "vmm/guest_memory.h"

namespace virtio {

// The largest queue offered, and the longest chain taken (indirect tables included).
inline constexpr uint16_t kMaxQueueSize = 1024;
inline constexpr uint32_t kMaxChainLength = 1024;

// A piece of guest memory that one descriptor names; checked to lie in RAM.
struct Buffer {
  vmm::Gpa gpa;
  uint32_t length = 0;  // bytes
};

// One request: what the device may read, then what it may write. Reused from pop to pop, so that a
// busy queue allocates nothing.
struct DescriptorChain {
  uint16_t head = 0;
  std::vector<Buffer> readable;
  std::vector<Buffer> writable;

  uint64_t readable_bytes() const;
  uint64_t writable_bytes() const;
};

// Where the driver put the queue, and what was negotiated for it.
struct QueueLayout {
  uint16_t size = 0;  // entries, a power of two
  vmm::Gpa descriptors, avail, used;
  bool event_index = false;  // VIRTIO_F_EVENT_IDX was negotiated
  bool indirect = false;     // VIRTIO_F_INDIRECT_DESC was negotiated
};

// Where the device stands; next_avail - next_used (mod 2^16) requests are in flight.
struct QueuePosition {
  uint16_t next_avail = 0;
  uint16_t next_used = 0;
};

class Virtqueue {
 public:
  // Checks size, alignment and that all three parts lie in RAM.
  // Reads nothing of them: a restored guest's memory may not be there yet.
  static base::Result<Virtqueue> create(vmm::GuestMemory& memory, const QueueLayout& layout,
                                        QueuePosition position = {});

  // Takes the next request off the avail ring; false where there is none.
  base::Result<bool> pop(DescriptorChain& chain);
  // Reads the chain of a request again that was popped before a snapshot and never given back. All
  // of it is checked anew: memory may be that of another guest.
  base::Result<void> retake(uint16_t head, DescriptorChain& chain) const;
  // Puts the request popped last back, to be popped again.
  void unpop() { --position_.next_avail; }

  // Gives a request back: the device wrote `written` bytes into its writable part, and has marked
  // them dirty.
  base::Result<void> push(uint16_t head, uint32_t written);
  // push() in two steps, for requests that the driver must see as used all at once.
  base::Result<void> add_used(uint16_t head, uint32_t written);
  base::Result<void> publish_used();

  // Does the driver want an interrupt for what was pushed since the last call?
  base::Result<bool> needs_interrupt();

  // Kicks are off while a device empties the queue. enable_kicks() returns true where the driver
  // added a request meanwhile: pop again, no kick will come for it.
  base::Result<void> disable_kicks();
  base::Result<bool> enable_kicks();

  uint16_t size() const { return layout_.size; }
  const QueueLayout& layout() const { return layout_; }
  QueuePosition position() const { return position_; }

 private:
  struct Descriptor {  // virtio 1.2, 2.7.5
    uint64_t address;
    uint32_t length;
    uint16_t flags;
    uint16_t next;
  };
  static_assert(sizeof(Descriptor) == 16);

  Virtqueue(vmm::GuestMemory& memory, const QueueLayout& layout, QueuePosition position)
      : memory_(&memory),
        layout_(layout),
        position_(position),
        interrupted_at_(position.next_used) {}

  base::Result<void> walk(vmm::Gpa table, uint32_t table_size, uint16_t first,
                          DescriptorChain& chain, bool inside_indirect) const;
  base::Result<uint16_t> avail_index() const;
  base::Result<void> add_buffer(const Descriptor& descriptor, DescriptorChain& chain) const;

  vmm::Gpa avail_flags() const { return layout_.avail; }
  vmm::Gpa avail_ring(uint16_t slot) const { return layout_.avail + 4 + 2u * slot; }
  vmm::Gpa used_event() const { return layout_.avail + 4 + 2u * layout_.size; }
  vmm::Gpa used_flags() const { return layout_.used; }
  vmm::Gpa used_ring(uint16_t slot) const { return layout_.used + 4 + 8u * slot; }
  vmm::Gpa avail_event() const { return layout_.used + 4 + 8u * layout_.size; }

  vmm::GuestMemory* memory_;
  QueueLayout layout_;
  QueuePosition position_;
  uint16_t interrupted_at_;  // next_used when needs_interrupt() was last asked
};

}  // namespace virtio
