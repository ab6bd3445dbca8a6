// The driver's side of a split virtqueue, written into guest memory by hand: tests use it to give a
// device good requests and every kind of bad one.
#pragma once

#include <cstdint>
#include <vector>

#include "devices/virtio/virtqueue.h"
#include "vmm/guest_memory.h"

namespace testing_support {

class DriverQueue {
 public:
  struct Descriptor {
    uint64_t address = 0;
    uint32_t length = 0;
    uint16_t flags = 0;
    uint16_t next = 0;
  };
  static constexpr uint16_t kNext = 1, kWrite = 2, kIndirect = 4;

  // Lays the queue out from `start`: one page each for descriptors, avail and used at size <= 256.
  DriverQueue(vmm::GuestMemory& memory, vmm::Gpa start, uint16_t size);

  virtio::QueueLayout layout(bool event_index = false, bool indirect = true) const;

  void set_descriptor(uint16_t index, const Descriptor& descriptor);
  // Writes a chain of buffers into consecutive descriptors from `first` and publishes it.
  void add(uint16_t first, const std::vector<virtio::Buffer>& readable,
           const std::vector<virtio::Buffer>& writable);
  // Publishes `head` in the avail ring.
  void publish(uint16_t head);
  void set_avail_index(uint16_t index);
  void set_avail_flags(uint16_t flags);
  void set_used_event(uint16_t index);

  uint16_t used_index() const;
  uint16_t used_flags() const;
  uint16_t avail_event() const;
  struct Used {
    uint32_t id, length;
  };
  Used used(uint16_t index) const;

 private:
  vmm::GuestMemory& memory_;
  vmm::Gpa descriptors_, avail_, used_;
  uint16_t size_;
  uint16_t avail_index_ = 0;
};

}  // namespace testing_support
