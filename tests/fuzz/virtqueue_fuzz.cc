// A queue whose descriptor table, rings and event index are whatever the fuzzer says: the device
// side ends, stays inside RAM, and gives each request back once.
#include "devices/virtio/virtqueue.h"
#include "tests/fuzz/fuzz_input.h"

namespace {

using vmm::Gpa;

void check_chain(const vmm::GuestMemory& memory, const virtio::DescriptorChain& chain) {
  FUZZ_CHECK(chain.readable.size() + chain.writable.size() <= virtio::kMaxChainLength);
  for (const auto* part : {&chain.readable, &chain.writable}) {
    for (const virtio::Buffer& buffer : *part) FUZZ_CHECK(memory.view(buffer.gpa, buffer.length));
  }
}

void empty_queue(vmm::GuestMemory& memory, virtio::Virtqueue& queue) {
  virtio::DescriptorChain chain;
  for (int popped = 0;; ++popped) {
    auto more = queue.pop(chain);
    if (!more || !*more) return;
    FUZZ_CHECK(popped < queue.size());  // the avail index does not move here
    check_chain(memory, chain);
    uint16_t head = chain.head;
    queue.unpop();
    more = queue.pop(chain);
    FUZZ_CHECK(more && *more && chain.head == head);
    // Whether the used ring overlaps what is still to be popped is the driver's fault alone.
    FUZZ_CHECK(queue.push(head, static_cast<uint32_t>(chain.writable_bytes())));
    FUZZ_CHECK(queue.needs_interrupt());
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  fuzz::Input input(data, size);
  auto memory = std::move(*vmm::GuestMemory::create(64 << 10));
  // Three bytes of set-up, then guest memory from address 0 on: table, avail ring, used ring.
  uint8_t shape = input.u8();
  virtio::QueueLayout layout;
  layout.size = static_cast<uint16_t>(1u << (shape & 7));
  layout.event_index = shape & 8;
  layout.indirect = shape & 16;
  layout.avail = Gpa{16u * layout.size};
  layout.used = Gpa{(layout.avail.value + 6 + 2u * layout.size + 3) / 4 * 4};
  if (shape & 32) layout.used = Gpa{input.u16()};  // may overlap the other parts, or leave RAM
  uint16_t position = input.u16();
  (void)memory->write(Gpa{0}, std::as_bytes(input.rest()));

  auto queue = virtio::Virtqueue::create(*memory, layout, {position, position});
  if (!queue) return 0;
  (void)queue->disable_kicks();
  empty_queue(*memory, *queue);
  if (queue->enable_kicks().value_or(false)) empty_queue(*memory, *queue);
  return 0;
}
