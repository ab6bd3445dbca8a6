// A FakeDevice behind its PciTransport on buses of its own, and a driver for it: the machine around
// one virtio device, without KVM. The test's thread is the vCPU; the device's event loop is real.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <optional>

#include "devices/virtio/pci_transport.h"
#include "tests/support/driver_queue.h"
#include "tests/support/fake_device.h"
#include "tests/support/fake_interrupts.h"
#include "tests/support/pci_driver.h"

namespace testing_support {

class TransportFixture : public ::testing::Test {
 protected:
  std::unique_ptr<vmm::GuestMemory> memory_ = std::move(*vmm::GuestMemory::create(1 << 20));
  vmm::Bus pio_, mmio_;
  test::FakeInterrupts interrupts_;
  pci::Root root_;
  std::unique_ptr<base::EventLoop> loop_ = std::move(*base::EventLoop::create("test"));
  FakeDevice device_;
  std::unique_ptr<virtio::PciTransport> transport_;
  PciDriver driver_{pio_, mmio_, interrupts_};
  std::optional<DriverQueue> queue0_, queue1_;

  void SetUp() override {
    ASSERT_TRUE(root_.attach(pio_, mmio_));
    transport_ = add(device_);
    driver_.probe();
    lay_out_queues();
  }
  void TearDown() override { loop_->stop(); }

  std::unique_ptr<virtio::PciTransport> add(FakeDevice& device) {
    auto made = virtio::PciTransport::create(
        {*memory_, mmio_, interrupts_, interrupts_, root_, *loop_}, device);
    EXPECT_TRUE(made);
    return std::move(*made);
  }
  void lay_out_queues() {
    queue0_.emplace(*memory_, vmm::Gpa{0x10000}, uint16_t{16});
    queue1_.emplace(*memory_, vmm::Gpa{0x20000}, uint16_t{8});
  }
  // Everything that a driver does up to DRIVER_OK.
  void start(uint64_t features = virtio::kFeatureVersion1 | virtio::kFeatureIndirect) {
    lay_out_queues();
    ASSERT_TRUE(driver_.negotiate(features));
    driver_.set_queue(0, queue0_->layout());
    driver_.set_queue(1, queue1_->layout());
    driver_.enable_interrupts(3);
    driver_.go();
    ASSERT_EQ(driver_.status(), PciDriver::kReady | virtio::kStatusDriverOk);
  }
  // Returns after all events that are ready now have been handled.
  void settle() {
    for (int i = 0; i < 3; ++i) loop_->run([] {});
  }
  int processed(uint16_t queue) {
    return transport_->locked([&] { return device_.processed[queue]; });
  }
  unsigned signals(size_t vector) { return interrupts_.vector(vector).signals; }
  void break_rules() {
    queue0_->set_descriptor(3, {1ull << 40, 16, 0, 0});  // not RAM
    queue0_->publish(3);
    driver_.kick(0);
    settle();
  }
};

}  // namespace testing_support
