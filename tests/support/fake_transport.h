// A transport in memory: gives a device its queues, counts its interrupts, and runs its watches
// when the test says so (poll()), on the test's own thread. Nothing runs by itself.
#pragma once

#include <poll.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "devices/virtio/device.h"
#include "tests/support/driver_queue.h"

namespace testing_support {

class FakeTransport : public virtio::Transport {
 public:
  // `memory_bytes` of RAM; the device's queues of `queue_size` lie at 0x10000 * (1 + index).
  explicit FakeTransport(virtio::Device& device, uint64_t memory_bytes = 4 << 20,
                         uint16_t queue_size = 16);

  // Activates the device with the features it offers and those of the transport.
  base::Result<void> activate(uint64_t without_features = 0, bool event_index = false);
  // A kick; an error stops the device as the real transport would (failure()).
  void kick(uint16_t queue);
  // Calls the handlers of ready descriptors; waits up to `timeout_ms` for one. False: none was.
  bool poll(int timeout_ms = 1000);
  // Resets the device, after a failure too, and runs its watches until requests in flight are done.
  // False where they are not after some seconds.
  bool reset_device();
  DriverQueue& driver(uint16_t queue) { return *drivers_.at(queue); }
  int interrupts(uint16_t queue) const { return interrupts_.at(queue); }
  int config_changes() const { return config_changes_; }
  const std::optional<std::string>& failure() const { return failure_; }
  bool was_reset() const { return reset_; }
  size_t watches() const { return watches_.size(); }

  vmm::GuestMemory& memory() override { return *memory_; }
  bool has_queue(uint16_t index) const override { return index < queues_.size(); }
  virtio::Virtqueue& queue(uint16_t index) override { return queues_.at(index); }
  base::Result<void> interrupt(uint16_t queue) override;
  void config_changed() override { ++config_changes_; }
  void fail(const base::Error& error) override { failure_ = error.text(); }
  base::Result<void> watch(int fd, uint32_t events, Handler handler) override;
  base::Result<void> change_watch(int fd, uint32_t events) override;
  void unwatch(int fd) override { watches_.erase(fd); }
  void reset_complete() override { reset_ = true; }

 private:
  struct Watch {
    uint32_t events;
    Handler handler;
  };
  virtio::Device& device_;
  std::unique_ptr<vmm::GuestMemory> memory_;
  std::vector<std::unique_ptr<DriverQueue>> drivers_;
  std::vector<virtio::Virtqueue> queues_;
  std::vector<int> interrupts_;
  int config_changes_ = 0;
  std::optional<std::string> failure_;
  bool reset_ = false;
  std::map<int, Watch> watches_;
};

}  // namespace testing_support
