#include "devices/virtio/pci_transport.h"

#include <gtest/gtest.h>
#include <sys/epoll.h>

#include <thread>

#include "tests/support/transport_fixture.h"

namespace virtio {
namespace {

using testing_support::FakeDevice;
using testing_support::PciDriver;
using vmm::Gpa;

constexpr Gpa kData{0x80000};
constexpr uint64_t kFeatures = kFeatureVersion1 | kFeatureIndirect | kFeatureEventIndex;

class PciTransportTest : public testing_support::TransportFixture {};

TEST_F(PciTransportTest, AKickIsProcessedOnTheLoopAndRaisesTheQueuesVector) {
  start();
  EXPECT_EQ(device_.activations, 1);
  EXPECT_EQ(device_.features_accepted, kFeatureVersion1 | kFeatureIndirect);
  std::thread::id where;
  device_.on_process = [&](uint16_t) {
    where = std::this_thread::get_id();
    return base::Result<void>{};
  };
  queue1_->add(2, {}, {{kData, 100}});
  ASSERT_TRUE(interrupts_.ring(driver_.doorbell(1)));
  settle();
  EXPECT_EQ(processed(0), 0);
  EXPECT_EQ(processed(1), 1);
  EXPECT_NE(where, std::this_thread::get_id());
  EXPECT_EQ(queue1_->used_index(), 1);
  EXPECT_EQ(queue1_->used(0).id, 2u);
  EXPECT_EQ(queue1_->used(0).length, 100u);
  EXPECT_EQ(signals(2), 1u);
  EXPECT_EQ(interrupts_.vector(2).message.data, 0x42u);
  EXPECT_EQ(signals(0) + signals(1), 0u);
  // The ISR says "queue", once.
  EXPECT_EQ(driver_.read<uint8_t>(driver_.structure[PciDriver::kIsr]), 1);
  EXPECT_EQ(driver_.read<uint8_t>(driver_.structure[PciDriver::kIsr]), 0);
}

TEST_F(PciTransportTest, WithoutIoeventfdAWriteToTheRegisterKicks) {
  interrupts_.refuse_doorbells = true;
  FakeDevice other;
  auto transport = add(other);
  PciDriver driver(pio_, mmio_, interrupts_, 2);
  driver.probe();
  ASSERT_TRUE(driver.negotiate(kFeatureVersion1));
  driver.set_queue(0, queue0_->layout());
  driver.go();
  queue0_->add(0, {{kData, 1}}, {});
  EXPECT_FALSE(interrupts_.ring(driver.doorbell(0)));
  driver.kick(0);
  settle();
  EXPECT_EQ(queue0_->used_index(), 1);
  loop_->stop();
}

TEST_F(PciTransportTest, AKickBeforeDriverOkIsNotLost) {
  ASSERT_TRUE(driver_.negotiate(kFeatureVersion1));
  driver_.set_queue(0, queue0_->layout());
  queue0_->add(0, {{kData, 1}}, {});
  driver_.kick(0);
  settle();
  EXPECT_EQ(processed(0), 0);
  driver_.go();
  settle();
  EXPECT_EQ(queue0_->used_index(), 1);
}

TEST_F(PciTransportTest, KicksOfQueuesThatAreNotThereOrNotEnabledDoNothing) {
  ASSERT_TRUE(driver_.negotiate(kFeatureVersion1));
  driver_.set_queue(0, queue0_->layout());
  driver_.go();
  driver_.kick(1);
  for (uint16_t queue : {2, 3, 500, 1023}) driver_.kick(queue);
  settle();
  EXPECT_EQ(processed(1), 0);
  EXPECT_FALSE(transport_->locked([&] { return transport_->has_queue(1); }));
  EXPECT_FALSE(transport_->locked([&] { return transport_->has_queue(2); }));
  EXPECT_EQ(driver_.status(), PciDriver::kReady | kStatusDriverOk);
}

// The loop may hold a kick of before the reset when the device starts again without that queue.
TEST_F(PciTransportTest, AKickFromBeforeAResetDoesNotReachAQueueThatIsGone) {
  for (int i = 0; i < 300; ++i) {
    start();
    if (HasFatalFailure()) return;
    driver_.kick(1);
    driver_.set_status(0);
    ASSERT_TRUE(driver_.negotiate(kFeatureVersion1));
    driver_.set_queue(0, queue0_->layout());
    driver_.go();
    driver_.set_status(0);
  }
  settle();
  EXPECT_EQ(transport_->locked([&] { return device_.processed_without_queue; }), 0);
}

TEST_F(PciTransportTest, AHostileChainStopsTheDeviceUntilItIsReset) {
  start();
  break_rules();
  EXPECT_TRUE(driver_.status() & kStatusNeedsReset);
  EXPECT_EQ(signals(0), 1u);  // the configuration vector tells the driver
  EXPECT_TRUE(driver_.read<uint8_t>(driver_.structure[PciDriver::kIsr]) & 2);
  int before = processed(0);
  queue0_->add(0, {{kData, 1}}, {});
  driver_.kick(0);
  settle();
  EXPECT_EQ(processed(0), before);
  EXPECT_EQ(queue0_->used_index(), 0);

  driver_.set_status(0);
  EXPECT_EQ(driver_.status(), 0);
  EXPECT_EQ(device_.resets, 1);
  start();
  EXPECT_EQ(device_.activations, 2);
  queue0_->add(0, {{kData, 1}}, {});
  driver_.kick(0);
  settle();
  EXPECT_EQ(queue0_->used_index(), 1);
}

TEST_F(PciTransportTest, AQueueOutsideRamStopsTheDeviceAtDriverOk) {
  ASSERT_TRUE(driver_.negotiate(kFeatureVersion1));
  QueueLayout layout = queue0_->layout();
  layout.used = Gpa{0xF000'0000};
  driver_.set_queue(0, layout);
  driver_.go();
  EXPECT_TRUE(driver_.status() & kStatusNeedsReset);
  EXPECT_EQ(device_.activations, 0);
  driver_.set_status(0);
  EXPECT_EQ(device_.resets, 0);  // it was never activated
  start();
  EXPECT_EQ(device_.activations, 1);
}

TEST_F(PciTransportTest, AQueueOfSizeZeroStopsTheDevice) {
  ASSERT_TRUE(driver_.negotiate(kFeatureVersion1));
  QueueLayout layout = queue0_->layout();
  layout.size = 0;
  driver_.set_queue(0, layout);
  driver_.go();
  EXPECT_TRUE(driver_.status() & kStatusNeedsReset);
}

TEST_F(PciTransportTest, ADeviceThatDoesNotStartNeedsAReset) {
  device_.on_activate = [] { return base::fail("no such luck"); };
  ASSERT_TRUE(driver_.negotiate(kFeatureVersion1));
  driver_.go();
  EXPECT_TRUE(driver_.status() & kStatusNeedsReset);
  driver_.set_status(0);
  EXPECT_EQ(device_.resets, 1);
  EXPECT_EQ(driver_.status(), 0);
  device_.on_activate = [] { return base::Result<void>{}; };
  start();
}

TEST_F(PciTransportTest, AResetWithRequestsInFlightEndsWhenTheDeviceSaysSo) {
  auto done = std::move(*base::EventFd::create());
  device_.on_activate = [&] {
    return device_.transport->watch(done.fd(), EPOLLIN, [&](uint32_t) {
      done.consume();
      device_.transport->unwatch(done.fd());
      device_.transport->reset_complete();
      return base::Result<void>{};
    });
  };
  device_.on_reset = [] { return false; };
  for (bool stopped : {false, true}) {
    start();
    if (stopped) break_rules();
    driver_.set_status(0);
    EXPECT_NE(driver_.status(), 0);  // the driver waits for 0 (2.1.2)
    // Meanwhile nothing is taken, nor a second reset begun.
    driver_.set_status(0);
    driver_.set_common<uint16_t>(PciDriver::kConfigVector, kNoVector);
    EXPECT_EQ(driver_.common<uint16_t>(PciDriver::kConfigVector), 0);
    driver_.go();
    driver_.kick(0);
    settle();
    EXPECT_EQ(device_.resets, stopped ? 2 : 1);
    done.signal();
    settle();
    EXPECT_EQ(driver_.status(), 0);
    EXPECT_EQ(driver_.common<uint16_t>(PciDriver::kConfigVector), kNoVector);
  }
  start();
}

TEST_F(PciTransportTest, AHandlersErrorStopsTheDevice) {
  auto event = std::move(*base::EventFd::create());
  int calls = 0;
  device_.on_activate = [&] {
    return device_.transport->watch(event.fd(), EPOLLIN, [&](uint32_t) {
      ++calls;
      return base::fail("bad weather");
    });
  };
  start();
  event.signal();  // and stays signalled
  settle();
  EXPECT_TRUE(driver_.status() & kStatusNeedsReset);
  settle();
  EXPECT_EQ(calls, 1);
}

TEST_F(PciTransportTest, AWatchOfAStoppedDeviceIsNotServed) {
  auto event = std::move(*base::EventFd::create());
  int calls = 0;
  start();
  break_rules();
  transport_->locked([&] {
    EXPECT_TRUE(transport_->watch(event.fd(), EPOLLIN, [&](uint32_t) {
      ++calls;
      event.consume();
      return base::Result<void>{};
    }));
  });
  event.signal();
  settle();
  EXPECT_EQ(calls, 0);
  // A reset that waits for it gets it.
  device_.on_reset = [] { return false; };
  driver_.set_status(0);
  settle();
  EXPECT_EQ(calls, 1);
  transport_->locked([&] { transport_->reset_complete(); });
  EXPECT_EQ(driver_.status(), 0);
}

// A loop that has taken an event waits for the lock while the descriptor's watch ends and another
// one begins, as in a reset and a new activation: that event is not the new one's.
TEST_F(PciTransportTest, AnEventOfAnEndedWatchDoesNotReachTheNextOneOfItsDescriptor) {
  start();
  auto event = std::move(*base::EventFd::create());
  int served = 0, unfounded = 0;
  auto handler = [&](uint32_t) {
    ++(event.consume() ? served : unfounded);
    return base::Result<void>{};
  };
  for (int i = 0; i < 300; ++i) {
    transport_->locked([&] {
      ASSERT_TRUE(transport_->watch(event.fd(), EPOLLIN, handler));
      event.signal();
      for (int spin = 0; spin < 100; ++spin) std::this_thread::yield();  // the loop gets here
      transport_->unwatch(event.fd());
      event.consume();
      ASSERT_TRUE(transport_->watch(event.fd(), EPOLLIN, handler));
    });
    settle();
    transport_->locked([&] { transport_->unwatch(event.fd()); });
  }
  EXPECT_EQ(unfounded, 0);
  EXPECT_EQ(served, 0);
  transport_->locked([&] { ASSERT_TRUE(transport_->watch(event.fd(), EPOLLIN, handler)); });
  event.signal();
  settle();
  EXPECT_EQ(served, 1);
}

TEST_F(PciTransportTest, ConfigurationIsReadWrittenAndItsChangeAnnounced) {
  start();
  uint32_t config = driver_.structure[PciDriver::kDevice];
  EXPECT_EQ(driver_.read<uint32_t>(config + 2), 0x06050403u);
  driver_.write<uint8_t>(config + 7, 0x99);
  EXPECT_EQ(driver_.read<uint8_t>(config + 7), 0x99);
  EXPECT_EQ(driver_.read<uint64_t>(config + 8), 0u);
  uint8_t generation = driver_.common<uint8_t>(PciDriver::kGeneration);
  transport_->locked([&] { transport_->config_changed(); });
  EXPECT_NE(driver_.common<uint8_t>(PciDriver::kGeneration), generation);
  EXPECT_EQ(signals(0), 1u);
}

TEST_F(PciTransportTest, NoConfigurationInterruptBeforeDriverOk) {
  driver_.enable_interrupts(3);
  driver_.set_common<uint16_t>(PciDriver::kConfigVector, 0);
  transport_->locked([&] { transport_->config_changed(); });
  EXPECT_EQ(signals(0), 0u);
  EXPECT_EQ(driver_.read<uint8_t>(driver_.structure[PciDriver::kIsr]), 0);
}

TEST_F(PciTransportTest, WhatIsPendingAtAResetIsForgotten) {
  start();
  driver_.set_config<uint16_t>(driver_.msix_capability + 2u, 0xC000);  // function mask
  queue0_->add(0, {{kData, 1}}, {});
  driver_.kick(0);
  settle();
  uint32_t pending = driver_.config<uint32_t>(driver_.msix_capability + 8u) & ~7u;
  EXPECT_EQ(driver_.read<uint64_t>(pending), 2u);
  driver_.set_status(0);
  EXPECT_EQ(driver_.read<uint64_t>(pending), 0u);
  driver_.set_config<uint16_t>(driver_.msix_capability + 2u, 0x8000);
  EXPECT_EQ(signals(1), 0u);
}

TEST_F(PciTransportTest, EventIndexHoldsInterruptsBack) {
  ASSERT_TRUE(driver_.negotiate(kFeatures));
  driver_.set_queue(0, queue0_->layout());
  driver_.enable_interrupts(3);
  driver_.go();
  queue0_->set_used_event(1);  // wants one after the second request
  for (uint16_t i = 0; i < 3; ++i) {
    queue0_->add(i, {{kData, 1}}, {});
    driver_.kick(0);
    settle();
    EXPECT_EQ(signals(1), i >= 1 ? 1u : 0u);
  }
}

TEST_F(PciTransportTest, AQueueDisabledOrMovedAfterDriverOkStaysAsItIs) {
  start();
  driver_.set_common<uint16_t>(PciDriver::kQueueSelect, 0);
  driver_.set_common<uint16_t>(PciDriver::kQueueEnable, 0);
  driver_.set_common<uint64_t>(PciDriver::kQueueDescriptors, 0xFFFFF000);
  driver_.set_common<uint16_t>(PciDriver::kQueueSize, 2);
  driver_.set_status(kStatusDriverOk | PciDriver::kReady);  // DRIVER_OK again
  EXPECT_EQ(device_.activations, 1);
  queue0_->add(0, {{kData, 1}}, {});
  driver_.kick(0);
  settle();
  EXPECT_EQ(queue0_->used_index(), 1);
}

TEST_F(PciTransportTest, AResetBetweenKickAndProcessingLosesTheRequestOnly) {
  start();
  for (int i = 0; i < 200; ++i) {
    queue0_->add(0, {{kData, 1}}, {});
    driver_.kick(0);
    driver_.set_status(0);
    ASSERT_EQ(driver_.status(), 0);
    start();
    if (HasFatalFailure()) return;
  }
  queue0_->add(0, {{kData, 1}}, {});
  driver_.kick(0);
  settle();
  EXPECT_EQ(queue0_->used_index(), 1);
}

}  // namespace
}  // namespace virtio
