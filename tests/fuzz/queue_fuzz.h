// A hostile driver for any virtio device: the fuzzer's bytes are a script of what it does with the
// queues, the configuration and the order of kicks. A device's target is
//
//   extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
//     fuzz::Input input(data, size);
//     virtio::Rng device(...);
//     fuzz::drive(device, input);
//     return 0;
//   }
//
// `outside` is the device's other side, where it has one (a socket, a tap): it is called when the
// script says so and takes what it needs from the input.
#pragma once

#include <array>
#include <functional>
#include <memory>

#include "tests/fuzz/fuzz_input.h"
#include "tests/support/fake_transport.h"

namespace fuzz {

using Outside = std::function<void(Input&)>;

class HostileDriver {
 public:
  HostileDriver(virtio::Device& device, Input& input, Outside outside)
      : device_(device), input_(input), outside_(std::move(outside)) {}

  void run() {
    start();
    for (int step = 0; step < kMaxSteps && !input_.empty(); ++step) act();
    stop();
  }

 private:
  static constexpr int kMaxSteps = 256;
  static constexpr vmm::Gpa kData{0x200000};
  static constexpr uint64_t kMemory = 4 << 20;

  void start() {
    uint8_t choice = input_.u8();
    transport_ = std::make_unique<testing_support::FakeTransport>(device_, kMemory);
    queues_ = static_cast<uint16_t>(device_.queue_sizes().size());
    // Bit 0: event index; bit 1: the driver takes none of the device's own features.
    active_ = transport_->activate(choice & 2 ? device_.features() : 0, choice & 1).has_value();
  }

  void stop() {
    // A device that refused its driver is reset all the same.
    FUZZ_CHECK(transport_->reset_device());
    FUZZ_CHECK(transport_->watches() == 0);
  }

  void act() {
    uint8_t action = input_.u8();
    auto queue = static_cast<uint16_t>(input_.u8() % queues_);
    auto& driver = transport_->driver(queue);
    switch (action % 12) {
      case 0:
        return add_chain(driver);
      case 1:
        return kick(queue);
      case 2:
        add_chain(driver);
        return kick(queue);
      case 3:
        return poll();
      case 4:
        return add_descriptor(driver);
      case 5:
        return driver.publish(input_.u16());
      case 6:
        return driver.set_avail_index(input_.u16());
      case 7:
        return driver.set_avail_flags(input_.u8());
      case 8:
        return driver.set_used_event(input_.u16());
      case 9:
        return configure();
      case 10:
        stop();
        return start();
      case 11:
        if (outside_) outside_(input_);
        return;
    }
  }

  void kick(uint16_t queue) {
    if (active_) transport_->kick(queue);
  }
  void poll() {
    if (active_) transport_->poll(0);
  }

  // A chain that follows the rules of the queue, of up to 8 buffers. What it asks for is the
  // fuzzer's choice: the readable buffers begin with bytes of the script.
  void add_chain(testing_support::DriverQueue& driver) {
    uint8_t first = input_.u8(), shape = input_.u8();
    std::vector<virtio::Buffer> readable, writable;
    for (int i = 0; i < shape % 8 + 1; ++i) {
      uint8_t where = input_.u8();
      virtio::Buffer buffer{kData + 64u * where, input_.u16()};
      if (i < shape / 8 % 8) {
        (void)transport_->memory().write(buffer.gpa, std::as_bytes(input_.bytes(input_.u8())));
        readable.push_back(buffer);
      } else {
        writable.push_back(buffer);
      }
    }
    driver.add(first % 16, readable, writable);
  }

  void add_descriptor(testing_support::DriverQueue& driver) {
    uint16_t index = input_.u8() % 16;
    testing_support::DriverQueue::Descriptor descriptor;
    descriptor.address = input_.u64();
    descriptor.length = input_.u32();
    descriptor.flags = input_.u8();
    descriptor.next = input_.u8();
    driver.set_descriptor(index, descriptor);
  }

  void configure() {
    uint32_t offset = input_.u32();
    auto value = input_.bytes(8);
    device_.write_config(offset, value);
    std::array<uint8_t, 8> read;
    device_.read_config(offset, std::span(read).first(value.size()));
  }

  virtio::Device& device_;
  Input& input_;
  Outside outside_;
  std::unique_ptr<testing_support::FakeTransport> transport_;
  uint16_t queues_ = 0;
  bool active_ = false;
};

inline void drive(virtio::Device& device, Input& input, Outside outside = nullptr) {
  HostileDriver(device, input, std::move(outside)).run();
}

}  // namespace fuzz
