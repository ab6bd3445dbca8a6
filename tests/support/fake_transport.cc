#include "tests/support/fake_transport.h"

#include <sys/epoll.h>

#include <algorithm>

namespace testing_support {

static_assert(EPOLLIN == POLLIN && EPOLLOUT == POLLOUT && EPOLLHUP == POLLHUP);

FakeTransport::FakeTransport(virtio::Device& device, uint64_t memory_bytes, uint16_t queue_size)
    : device_(device), memory_(std::move(*vmm::GuestMemory::create(memory_bytes))) {
  auto sizes = device.queue_sizes();
  for (size_t i = 0; i < sizes.size(); ++i) {
    drivers_.push_back(std::make_unique<DriverQueue>(*memory_, vmm::Gpa{0x10000 * (1 + i)},
                                                     std::min(queue_size, sizes[i])));
  }
  interrupts_.resize(sizes.size());
}

base::Result<void> FakeTransport::activate(uint64_t without_features, bool event_index) {
  queues_.clear();
  for (auto& driver : drivers_) {
    TRY_ASSIGN(auto queue, virtio::Virtqueue::create(*memory_, driver->layout(event_index)));
    queues_.push_back(std::move(queue));
  }
  uint64_t features = device_.features() | virtio::kFeatureVersion1 | virtio::kFeatureIndirect |
                      (event_index ? virtio::kFeatureEventIndex : 0);
  return device_.activate(*this, features & ~without_features);
}

void FakeTransport::kick(uint16_t queue) {
  if (failure_) return;
  if (auto done = device_.process(queue); !done) fail(done.error());
}

bool FakeTransport::poll(int timeout_ms) {
  std::vector<pollfd> fds;
  for (auto& [fd, watch] : watches_) fds.push_back({fd, static_cast<short>(watch.events), 0});
  int ready = ::poll(fds.data(), fds.size(), timeout_ms);
  for (auto& entry : fds) {
    if (entry.revents == 0) continue;
    auto found = watches_.find(entry.fd);  // an earlier handler may have taken it away
    if (found == watches_.end() || failure_) continue;
    Handler handler = found->second.handler;
    if (auto done = handler(static_cast<uint32_t>(entry.revents)); !done) fail(done.error());
  }
  return ready > 0;
}

bool FakeTransport::reset_device() {
  failure_.reset();
  reset_ = device_.reset();
  for (int waited = 0; !reset_ && waited < 5; ++waited) {
    while (!reset_ && poll(1000)) {
    }
  }
  return reset_;
}

base::Result<void> FakeTransport::interrupt(uint16_t queue) {
  TRY_ASSIGN(bool needed, queues_.at(queue).needs_interrupt());
  if (needed) ++interrupts_.at(queue);
  return {};
}

base::Result<void> FakeTransport::watch(int fd, uint32_t events, Handler handler) {
  watches_[fd] = {events, std::move(handler)};
  return {};
}

base::Result<void> FakeTransport::change_watch(int fd, uint32_t events) {
  watches_.at(fd).events = events;
  return {};
}

}  // namespace testing_support
