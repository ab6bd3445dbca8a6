// A machine around one virtio device, without KVM: buses, PCI root, event loop, transport, and a
// driver with queues of 16 entries. Guest memory belongs to the test, so that a second machine can
// be restored over the memory of the first. The test's thread is the vCPU.
#pragma once

#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "devices/virtio/pci_transport.h"
#include "tests/support/driver_queue.h"
#include "tests/support/fake_interrupts.h"
#include "tests/support/pci_driver.h"

namespace testing_support {

class VirtioMachine {
 public:
  static constexpr uint16_t kQueueSize = 16;

  // The queues lie at 0x10000 * (1 + index).
  VirtioMachine(vmm::GuestMemory& memory, virtio::Device& device)
      : loop_(std::move(*base::EventLoop::create("test"))) {
    if (!root_.attach(pio, mmio)) throw std::runtime_error("PCI root");
    auto made =
        virtio::PciTransport::create({memory, mmio, interrupts, interrupts, root_, *loop_}, device);
    if (!made) throw std::runtime_error(made.error().text());
    transport = std::move(*made);
    driver.probe();
    for (size_t i = 0; i < device.queue_sizes().size(); ++i) {
      queues.emplace_back(memory, vmm::Gpa{0x10000 * (1 + i)}, kQueueSize);
    }
  }
  ~VirtioMachine() {
    if (frozen_) thaw();
    loop_->stop();
  }

  // Everything that a driver does up to DRIVER_OK.
  void start(uint64_t device_features = 0, bool event_index = false) {
    uint64_t features = device_features | virtio::kFeatureVersion1 | virtio::kFeatureIndirect |
                        (event_index ? virtio::kFeatureEventIndex : 0);
    if (!driver.negotiate(features)) throw std::runtime_error("features refused");
    for (uint16_t i = 0; i < queues.size(); ++i) {
      driver.set_queue(i, queues[i].layout(event_index));
    }
    driver.enable_interrupts(static_cast<uint32_t>(queues.size()) + 1);
    driver.go();
  }
  // Returns after all events that are ready now have been handled.
  void settle() {
    for (int i = 0; i < 3; ++i) loop_->run([] {});
  }
  unsigned signals(size_t vector) { return interrupts.vector(vector).signals; }

  void freeze() {
    loop_->hold();
    transport->freeze();
    frozen_ = true;
  }
  void thaw() {
    transport->thaw();
    loop_->release();
    frozen_ = false;
  }
  std::vector<std::byte> save() {
    freeze();
    auto bytes = save_frozen();
    thaw();
    return bytes;
  }
  std::vector<std::byte> save_frozen() {
    std::vector<std::byte> bytes;
    base::Encoder encoder(bytes);
    transport->save(encoder);
    return bytes;
  }
  // Leaves the machine frozen, as the platform does; wake() ends that.
  base::Result<void> restore(std::span<const std::byte> bytes) {
    freeze();
    base::Decoder decoder(bytes);
    auto read = transport->restore(decoder);
    if (decoder.ok()) TRY(read);
    TRY(decoder.finish("state"));
    TRY(transport->restart());
    std::vector<vmm::MsiRoute> routes;
    transport->append_routes(routes);
    if (interrupts.set_messages(routes)) transport->routes_ready();
    return {};
  }
  void wake() {
    transport->wake();
    thaw();
    settle();
  }

  vmm::Bus pio, mmio;
  test::FakeInterrupts interrupts;

 private:
  pci::Root root_;
  std::unique_ptr<base::EventLoop> loop_;
  bool frozen_ = false;

 public:
  std::unique_ptr<virtio::PciTransport> transport;  // after what it stands on
  PciDriver driver{pio, mmio, interrupts};
  std::vector<DriverQueue> queues;
};

}  // namespace testing_support
