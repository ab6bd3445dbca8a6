#include "tests/support/driver_queue.h"

#include <stdexcept>

namespace testing_support {
namespace {

// The tests lay their queues out inside RAM; anything else is a mistake of the test.
template <typename T>
T must(base::Result<T> result) {
  if (!result) throw std::logic_error(result.error().text());
  if constexpr (!std::is_void_v<T>) return std::move(*result);
}

}  // namespace

DriverQueue::DriverQueue(vmm::GuestMemory& memory, vmm::Gpa start, uint16_t size)
    : memory_(memory),
      descriptors_(start),
      avail_(start + 16u * size),
      used_(start + (16u * size + 6 + 2u * size + 3) / 4 * 4),
      size_(size) {
  must(memory.fill_zero(start, used_.value + 6 + 8u * size - start.value));
}

virtio::QueueLayout DriverQueue::layout(bool event_index, bool indirect) const {
  return {size_, descriptors_, avail_, used_, event_index, indirect};
}

void DriverQueue::set_descriptor(uint16_t index, const Descriptor& descriptor) {
  must(memory_.store(descriptors_ + 16u * index, descriptor));
}

void DriverQueue::add(uint16_t first, const std::vector<virtio::Buffer>& readable,
                      const std::vector<virtio::Buffer>& writable) {
  size_t count = readable.size() + writable.size();
  for (size_t i = 0; i < count; ++i) {
    bool write = i >= readable.size();
    const virtio::Buffer& buffer = write ? writable[i - readable.size()] : readable[i];
    auto index = static_cast<uint16_t>((first + i) % size_);
    auto next = static_cast<uint16_t>((index + 1) % size_);
    uint16_t flags = (write ? kWrite : 0) | (i + 1 < count ? kNext : 0);
    set_descriptor(index, {buffer.gpa.value, buffer.length, flags, next});
  }
  publish(first);
}

void DriverQueue::publish(uint16_t head) {
  must(memory_.store(avail_ + 4 + 2u * (avail_index_ % size_), head));
  set_avail_index(static_cast<uint16_t>(avail_index_ + 1));
}

void DriverQueue::set_avail_index(uint16_t index) {
  avail_index_ = index;
  must(memory_.store_release16(avail_ + 2, index));
}

void DriverQueue::set_avail_flags(uint16_t flags) { must(memory_.store(avail_, flags)); }

void DriverQueue::set_used_event(uint16_t index) {
  must(memory_.store(avail_ + 4 + 2u * size_, index));
}

uint16_t DriverQueue::used_index() const { return must(memory_.load_acquire16(used_ + 2)); }
uint16_t DriverQueue::used_flags() const { return must(memory_.load<uint16_t>(used_)); }
uint16_t DriverQueue::avail_event() const {
  return must(memory_.load<uint16_t>(used_ + 4 + 8u * size_));
}

DriverQueue::Used DriverQueue::used(uint16_t index) const {
  return must(memory_.load<Used>(used_ + 4 + 8u * (index % size_)));
}

}  // namespace testing_support
