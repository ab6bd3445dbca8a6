// The device barrier while a device works: what is saved under it agrees with the rings, and no
// request, kick or interrupt is lost. (Order and locks: devices/platform.h.)
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <mutex>
#include <stdexcept>
#include <thread>

#include "devices/virtio/rng.h"
#include "tests/support/virtio_machine.h"

namespace virtio {
namespace {

using testing_support::VirtioMachine;
using vmm::Gpa;

constexpr Gpa kData{0x80000};

void wait_until(const std::function<bool()>& condition) {
  const auto limit = std::chrono::steady_clock::now() + std::chrono::minutes(1);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > limit)
      throw std::runtime_error("the device stands still");
    std::this_thread::yield();
  }
}

// A vCPU that makes requests one after the other, each when the interrupt of the one before came.
class Guest {
 public:
  explicit Guest(VirtioMachine& machine) : machine_(machine) {
    thread_ = std::thread([this] { run(); });
  }
  ~Guest() {
    stop_ = true;
    thread_.join();
  }
  // Between pause() and resume() the guest is out: it touches neither registers nor memory. It has
  // made a request since it was last out, so the device is likely to be at work.
  void pause() {
    wait_until([this] { return requests_ != requests_when_out_; });
    running_.lock();
    requests_when_out_ = requests_;
  }
  void resume() { running_.unlock(); }
  uint16_t requests() const { return requests_; }

 private:
  void run() {
    unsigned before = machine_.signals(1);
    while (!stop_) {
      {
        std::lock_guard lock(running_);
        auto slot = static_cast<uint16_t>(requests_ % VirtioMachine::kQueueSize);
        machine_.queues[0].add(slot, {}, {{kData + slot * 64u, 64}});
        machine_.driver.kick(0);
        ++requests_;
      }
      while (machine_.signals(1) == before && !stop_) std::this_thread::yield();
      before = machine_.signals(1);
    }
  }

  VirtioMachine& machine_;
  std::mutex running_;
  std::atomic<bool> stop_ = false;
  std::atomic<uint16_t> requests_ = 0;
  uint16_t requests_when_out_ = 0;  // of the thread that pauses
  std::thread thread_;
};

TEST(DeviceBarrier, FreezesAndThawsABusyDevice) {
  auto memory = std::move(*vmm::GuestMemory::create(1 << 20));
  auto rng = *Rng::create("rng");
  VirtioMachine machine(*memory, *rng);
  machine.start();
  {
    Guest guest(machine);
    for (int i = 0; i < 300; ++i) {
      guest.pause();
      machine.freeze();
      // One locked step: given back, announced, marked.
      QueuePosition position = machine.transport->queue(0).position();
      EXPECT_EQ(position.next_avail, position.next_used);
      EXPECT_EQ(machine.queues[0].used_index(), position.next_used);
      EXPECT_EQ(static_cast<uint16_t>(machine.signals(1)), position.next_used);
      EXPECT_LE(static_cast<uint16_t>(guest.requests() - position.next_used), 1);
      auto state = machine.save_frozen();
      std::this_thread::yield();
      EXPECT_EQ(machine.save_frozen(), state);
      machine.thaw();
      guest.resume();
    }
    unsigned before = machine.signals(1);
    wait_until([&] { return machine.signals(1) != before; });  // it goes on
  }
}

// Each snapshot of a run is restored: what the first machine had not answered the second one does.
TEST(DeviceBarrier, ARestoredDeviceAnswersWhatTheFirstHadNot) {
  auto memory = std::move(*vmm::GuestMemory::create(1 << 20));
  auto rng = *Rng::create("rng");
  VirtioMachine machine(*memory, *rng);
  machine.start();
  Guest guest(machine);
  for (int i = 0; i < 50; ++i) {
    auto copy = std::move(*vmm::GuestMemory::create(1 << 20));
    auto other_rng = *Rng::create("rng");
    VirtioMachine other(*copy, *other_rng);
    guest.pause();
    machine.freeze();
    auto state = machine.save_frozen();
    ASSERT_TRUE(copy->write(Gpa{0}, *memory->view(Gpa{0}, 1 << 20)));
    ASSERT_TRUE(other.restore(state));
    other.wake();
    EXPECT_EQ(other.queues[0].used_index(), guest.requests());
    machine.thaw();
    guest.resume();
  }
}

}  // namespace
}  // namespace virtio
