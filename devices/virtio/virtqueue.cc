#include "devices/virtio/virtqueue.h"

#include <fmt/format.h>

#include <atomic>
#include <bit>

namespace virtio {

using base::fail;
using base::Result;
using vmm::Gpa;

namespace {

// Descriptor flags and ring flags (virtio 1.2, 2.7.5 to 2.7.8).
constexpr uint16_t kNext = 1;
constexpr uint16_t kWrite = 2;
constexpr uint16_t kIndirect = 4;
constexpr uint16_t kAvailNoInterrupt = 1;
constexpr uint16_t kUsedNoNotify = 1;

uint64_t total(const std::vector<Buffer>& buffers) {
  uint64_t bytes = 0;
  for (const Buffer& buffer : buffers) bytes += buffer.length;
  return bytes;
}

}  // namespace

uint64_t DescriptorChain::readable_bytes() const { return total(readable); }
uint64_t DescriptorChain::writable_bytes() const { return total(writable); }

Result<Virtqueue> Virtqueue::create(vmm::GuestMemory& memory, const QueueLayout& layout,
                                    QueuePosition position) {
  if (layout.size == 0 || layout.size > kMaxQueueSize || !std::has_single_bit(layout.size)) {
    return fail(
        fmt::format("queue size {} is not a power of two up to {}", layout.size, kMaxQueueSize));
  }
  if (layout.descriptors.value % 16 != 0 || layout.avail.value % 2 != 0 ||
      layout.used.value % 4 != 0) {
    return fail("queue parts are not aligned");
  }
  // Both rings end in the two bytes of the event index.
  TRY(memory.view(layout.descriptors, 16u * layout.size));
  TRY(memory.view(layout.avail, 6 + 2u * layout.size));
  TRY(memory.view(layout.used, 6 + 8u * layout.size));
  return Virtqueue(memory, layout, position);
}

Result<uint16_t> Virtqueue::avail_index() const {
  TRY_ASSIGN(uint16_t index, memory_->load_acquire16(layout_.avail + 2));
  if (static_cast<uint16_t>(index - position_.next_avail) > layout_.size) {
    return fail(fmt::format("avail index {} is more than a queue ahead of {}", index,
                            position_.next_avail));
  }
  // Each request has a descriptor of its own until it is given back: a driver that publishes more
  // would have the device keep any number of them.
  if (static_cast<uint16_t>(index - position_.next_used) > layout_.size) {
    return fail(fmt::format("avail index {} with used index {}: more requests than descriptors",
                            index, position_.next_used));
  }
  return index;
}

Result<bool> Virtqueue::pop(DescriptorChain& chain) {
  TRY_ASSIGN(uint16_t available, avail_index());
  if (available == position_.next_avail) return false;
  TRY_ASSIGN(uint16_t head,
             memory_->load<uint16_t>(avail_ring(position_.next_avail % layout_.size)));
  TRY(retake(head, chain));
  ++position_.next_avail;
  return true;
}

Result<void> Virtqueue::retake(uint16_t head, DescriptorChain& chain) const {
  chain.head = head;
  chain.readable.clear();
  chain.writable.clear();
  TRY(walk(layout_.descriptors, layout_.size, head, chain, false));
  if (chain.readable_bytes() + chain.writable_bytes() > UINT32_MAX) {
    return fail("descriptor chain is longer than 4 GiB");
  }
  return {};
}

Result<void> Virtqueue::walk(Gpa table, uint32_t table_size, uint16_t first, DescriptorChain& chain,
                             bool inside_indirect) const {
  uint32_t index = first;
  // A chain longer than its table visits a descriptor twice: it is a loop.
  for (uint32_t step = 0;; ++step) {
    if (index >= table_size) return fail(fmt::format("descriptor {} of {}", index, table_size));
    if (step >= table_size) return fail("descriptor chain is a loop");
    TRY_ASSIGN(Descriptor descriptor, memory_->load<Descriptor>(table + 16ull * index));
    if (descriptor.flags & kIndirect) {
      if (!layout_.indirect) return fail("indirect descriptor without the feature");
      if (inside_indirect) return fail("indirect descriptor inside an indirect table");
      if (descriptor.flags & kNext) return fail("indirect descriptor with a next one");
      if (descriptor.length == 0 || descriptor.length % 16 != 0 ||
          descriptor.length / 16 > kMaxChainLength) {
        return fail(fmt::format("indirect table of {} bytes", descriptor.length));
      }
      TRY(memory_->view(Gpa{descriptor.address}, descriptor.length));
      return walk(Gpa{descriptor.address}, descriptor.length / 16, 0, chain, true);
    }
    TRY(add_buffer(descriptor, chain));
    if (!(descriptor.flags & kNext)) return {};
    index = descriptor.next;
  }
}

Result<void> Virtqueue::add_buffer(const Descriptor& descriptor, DescriptorChain& chain) const {
  if (chain.readable.size() + chain.writable.size() >= kMaxChainLength) {
    return fail("descriptor chain is too long");
  }
  TRY(memory_->view(Gpa{descriptor.address}, descriptor.length));
  Buffer buffer{Gpa{descriptor.address}, descriptor.length};
  if (descriptor.flags & kWrite) {
    chain.writable.push_back(buffer);
  } else if (!chain.writable.empty()) {
    return fail("readable descriptor after a writable one");
  } else {
    chain.readable.push_back(buffer);
  }
  return {};
}

Result<void> Virtqueue::push(uint16_t head, uint32_t written) {
  TRY(add_used(head, written));
  return publish_used();
}

Result<void> Virtqueue::add_used(uint16_t head, uint32_t written) {
  struct Used {
    uint32_t id;
    uint32_t length;
  } used{head, written};
  TRY(memory_->store(used_ring(position_.next_used % layout_.size), used));
  ++position_.next_used;
  return {};
}

Result<void> Virtqueue::publish_used() {
  // Release: the driver that sees the index sees the entries and the data before it.
  return memory_->store_release16(layout_.used + 2, position_.next_used);
}

Result<bool> Virtqueue::needs_interrupt() {
  uint16_t old_used = interrupted_at_;
  uint16_t new_used = position_.next_used;
  interrupted_at_ = new_used;
  if (old_used == new_used) return false;
  // The used index must be visible before the driver's wish is read, or both sides wait: the driver
  // writes its wish, then looks at the index; we write the index, then look at its wish.
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (!layout_.event_index) {
    TRY_ASSIGN(uint16_t flags, memory_->load_acquire16(avail_flags()));
    return !(flags & kAvailNoInterrupt);
  }
  TRY_ASSIGN(uint16_t event, memory_->load_acquire16(used_event()));
  // Did the used index pass `event` (virtio 1.2, 2.7.7.2)?
  return static_cast<uint16_t>(new_used - event - 1) < static_cast<uint16_t>(new_used - old_used);
}

Result<void> Virtqueue::disable_kicks() {
  // With the event index an old avail_event does it: the driver kicks once at most.
  if (layout_.event_index) return {};
  return memory_->store(used_flags(), kUsedNoNotify);
}

Result<bool> Virtqueue::enable_kicks() {
  if (layout_.event_index) {
    TRY(memory_->store(avail_event(), position_.next_avail));
  } else {
    TRY(memory_->store(used_flags(), uint16_t{0}));
  }
  // Our wish must be visible before the index is read again; see needs_interrupt().
  std::atomic_thread_fence(std::memory_order_seq_cst);
  TRY_ASSIGN(uint16_t available, avail_index());
  return available != position_.next_avail;
}

}  // namespace virtio
