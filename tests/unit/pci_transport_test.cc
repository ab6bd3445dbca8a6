#include "devices/virtio/pci_transport.h"

#include <gtest/gtest.h>
#include <sys/epoll.h>

#include <atomic>
#include <optional>
#include <random>
#include <thread>
#include <vector>

#include "tests/support/driver_queue.h"
#include "tests/support/fake_device.h"
#include "tests/support/fake_interrupts.h"
#include "tests/support/pci_driver.h"
#include "vmm/layout.h"

namespace virtio {
namespace {

using testing_support::DriverQueue;
using testing_support::FakeDevice;
using testing_support::PciDriver;
using vmm::Gpa;

constexpr Gpa kData{0x80000};
constexpr uint64_t kFeatures = kFeatureVersion1 | kFeatureIndirect | kFeatureEventIndex;

class PciTransportTest : public ::testing::Test {
 protected:
  std::unique_ptr<vmm::GuestMemory> memory_ = std::move(*vmm::GuestMemory::create(1 << 20));
  vmm::Bus pio_, mmio_;
  test::FakeInterrupts interrupts_;
  pci::Root root_;
  std::unique_ptr<base::EventLoop> loop_ = std::move(*base::EventLoop::create("test"));
  FakeDevice device_;
  std::unique_ptr<PciTransport> transport_;
  PciDriver driver_{pio_, mmio_, interrupts_};
  std::optional<DriverQueue> queue0_, queue1_;

  void SetUp() override {
    ASSERT_TRUE(root_.attach(pio_, mmio_));
    transport_ = add(device_);
    driver_.probe();
    lay_out_queues();
  }
  void TearDown() override { loop_->stop(); }

  std::unique_ptr<PciTransport> add(FakeDevice& device) {
    auto made =
        PciTransport::create({*memory_, mmio_, interrupts_, interrupts_, root_, *loop_}, device);
    EXPECT_TRUE(made);
    return std::move(*made);
  }
  void lay_out_queues() {
    queue0_.emplace(*memory_, Gpa{0x10000}, uint16_t{16});
    queue1_.emplace(*memory_, Gpa{0x20000}, uint16_t{8});
  }
  // Everything that a driver does up to DRIVER_OK.
  void start(uint64_t features = kFeatureVersion1 | kFeatureIndirect) {
    lay_out_queues();
    ASSERT_TRUE(driver_.negotiate(features));
    driver_.set_queue(0, queue0_->layout());
    driver_.set_queue(1, queue1_->layout());
    driver_.enable_interrupts(3);
    driver_.go();
    ASSERT_EQ(driver_.status(), PciDriver::kReady | kStatusDriverOk);
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

TEST_F(PciTransportTest, ShowsAVirtioBlockDeviceWithAllStructures) {
  EXPECT_EQ(driver_.config<uint32_t>(0), 0x10421AF4u);
  EXPECT_GE(driver_.config<uint8_t>(8), 1);
  EXPECT_EQ(driver_.config<uint16_t>(0x0A), 0x0180);
  for (uint8_t type : {1, 2, 3, 4, 5}) EXPECT_TRUE(driver_.capability.count(type)) << +type;
  EXPECT_NE(driver_.msix_capability, 0);
  EXPECT_EQ(driver_.bar(), vmm::layout::kPciWindow.value);
  EXPECT_EQ(driver_.offered(), kFeatures | 5);
  // No structure reaches into another (4.1.4: each its own part of the BAR).
  for (auto& [type, at] : driver_.capability) {
    if (type == PciDriver::kWindow) continue;
    uint32_t begin = driver_.config<uint32_t>(at + 8u);
    uint32_t end = begin + driver_.config<uint32_t>(at + 12u);
    for (auto& [other, other_at] : driver_.capability) {
      if (other == type || other == PciDriver::kWindow) continue;
      uint32_t other_begin = driver_.config<uint32_t>(other_at + 8u);
      EXPECT_TRUE(other_begin >= end || other_begin < begin) << +type << " and " << +other;
    }
  }
}

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

TEST_F(PciTransportTest, TheBarMovesAndItsDoorbellsWithIt) {
  start();
  uint64_t old_bar = driver_.bar();
  ASSERT_EQ(interrupts_.doorbells().size(), 2u);
  uint64_t old_doorbell = driver_.doorbell(0);
  driver_.set_config<uint32_t>(pci::kBar0, 0xD0000000);
  EXPECT_EQ(interrupts_.doorbells().size(), 2u);
  EXPECT_FALSE(interrupts_.ring(old_doorbell));
  uint8_t data[4];
  EXPECT_FALSE(mmio_.read(old_bar, data));
  EXPECT_EQ(driver_.status(), PciDriver::kReady | kStatusDriverOk);
  queue0_->add(0, {{kData, 1}}, {});
  EXPECT_TRUE(interrupts_.ring(driver_.doorbell(0)));
  settle();
  EXPECT_EQ(queue0_->used_index(), 1);
}

TEST_F(PciTransportTest, SizingTheBarWithDecodingOffLeavesItWhereItWas) {
  uint32_t bar = driver_.config<uint32_t>(pci::kBar0);
  driver_.set_config<uint16_t>(pci::kCommand, 0);
  uint8_t data[4];
  EXPECT_FALSE(mmio_.read(bar, data));
  EXPECT_TRUE(interrupts_.doorbells().empty());
  driver_.set_config<uint32_t>(pci::kBar0, 0xFFFFFFFF);
  EXPECT_EQ(driver_.config<uint32_t>(pci::kBar0), 0xFFFF8000u);
  driver_.set_config<uint32_t>(pci::kBar0, bar);
  driver_.set_config<uint16_t>(pci::kCommand, pci::kCommandMemory | pci::kCommandBusMaster);
  EXPECT_TRUE(mmio_.read(bar, data));
  EXPECT_EQ(interrupts_.doorbells().size(), 2u);
}

TEST_F(PciTransportTest, ABarOnTopOfAnotherDeviceIsNowhereUntilItMoves) {
  FakeDevice other;
  auto transport = add(other);
  PciDriver driver(pio_, mmio_, interrupts_, 2);
  driver.probe();
  uint32_t own = driver.config<uint32_t>(pci::kBar0);
  uint32_t taken = driver_.config<uint32_t>(pci::kBar0);
  driver.set_config<uint32_t>(pci::kBar0, taken);
  EXPECT_EQ(driver.config<uint32_t>(pci::kBar0), taken);
  uint8_t data[4];
  EXPECT_FALSE(mmio_.read(own, data));
  // The first device is undisturbed.
  start();
  queue0_->add(0, {{kData, 1}}, {});
  driver_.kick(0);
  settle();
  EXPECT_EQ(queue0_->used_index(), 1);
  EXPECT_EQ(interrupts_.doorbells().size(), 2u);
  driver.set_config<uint32_t>(pci::kBar0, own);
  EXPECT_EQ(driver.offered(), kFeatures | 5);
  EXPECT_EQ(interrupts_.doorbells().size(), 4u);
  // Nor may it cover the configuration space itself.
  driver.set_config<uint32_t>(pci::kBar0, static_cast<uint32_t>(vmm::layout::kPciEcam.value));
  EXPECT_EQ(driver.config<uint32_t>(0), 0x10421AF4u);
  driver.set_config<uint32_t>(pci::kBar0, own);
  EXPECT_EQ(driver.offered(), kFeatures | 5);
  loop_->stop();
}

// One vCPU moves the BAR, others use the device at both places.
TEST_F(PciTransportTest, TheBarMovesWhileOthersUseTheDevice) {
  start();
  std::atomic<bool> end = false;
  std::vector<std::thread> users;
  for (uint64_t place : {driver_.bar(), uint64_t{0xD0000000}}) {
    users.emplace_back([&, place] {
      uint8_t data[4] = {};
      while (!end) {
        mmio_.read(place + 0x14, std::span(data).first(1));
        mmio_.write(place + 0x16, std::span(data).first(2));
        mmio_.read(place + 0x2000, data);
      }
    });
  }
  uint32_t home = static_cast<uint32_t>(driver_.bar());
  for (int i = 0; i < 500; ++i) driver_.set_config<uint32_t>(pci::kBar0, i % 2 ? home : 0xD0000000);
  end = true;
  for (auto& user : users) user.join();
  EXPECT_EQ(driver_.status(), PciDriver::kReady | kStatusDriverOk);
}

TEST_F(PciTransportTest, TheWindowInConfigurationSpaceReachesTheBar) {
  uint8_t window = driver_.capability[PciDriver::kWindow];
  auto aim = [&](uint32_t offset, uint32_t length, uint8_t bar = 0) {
    driver_.set_config<uint8_t>(window + 4u, bar);
    driver_.set_config<uint32_t>(window + 8u, offset);
    driver_.set_config<uint32_t>(window + 12u, length);
  };
  uint32_t status = driver_.structure[PciDriver::kCommon] + PciDriver::kStatus;
  aim(status, 1);
  driver_.set_config<uint32_t>(window + 16u, kStatusAcknowledge);
  EXPECT_EQ(driver_.status(), kStatusAcknowledge);
  EXPECT_EQ(driver_.config<uint8_t>(window + 16u), kStatusAcknowledge);
  uint32_t config = driver_.structure[PciDriver::kDevice];
  aim(config, 4);
  EXPECT_EQ(driver_.config<uint32_t>(window + 16u), 0x04030201u);
  // The length is the capability's, not the access's (4.1.4.9.1).
  aim(config + 4, 2);
  EXPECT_EQ(driver_.config<uint32_t>(window + 16u) & 0xFFFF, 0x0605u);
  driver_.set_config<uint32_t>(window + 16u, 0x11223344);
  EXPECT_EQ(driver_.read<uint32_t>(config + 4), 0x08073344u);
}

TEST_F(PciTransportTest, TheWindowRefusesNonsense) {
  start();
  uint8_t window = driver_.capability[PciDriver::kWindow];
  struct Aim {
    uint8_t bar;
    uint32_t offset, length;
  } const aims[] = {
      {0, 0x14, 0},   {0, 0x14, 3},       {0, 0x14, 8},       {0, 0x14, ~0u},
      {0, 0x15, 4},   {0, 0xFFFFFFFF, 1}, {0, 0xFFFFFFFC, 4}, {0, 0xFFFFFFFE, 2},
      {0, 0x8000, 4}, {1, 0x14, 1},       {255, 0x14, 1},     {0, 0x7FFC, 4},
  };
  for (const Aim& aim : aims) {
    driver_.set_config<uint8_t>(window + 4u, aim.bar);
    driver_.set_config<uint32_t>(window + 8u, aim.offset);
    driver_.set_config<uint32_t>(window + 12u, aim.length);
    driver_.set_config<uint32_t>(window + 16u, 0);  // were it the status, a reset
    (void)driver_.config<uint32_t>(window + 16u);
    (void)driver_.config<uint16_t>(window + 18u);
    EXPECT_EQ(driver_.status(), PciDriver::kReady | kStatusDriverOk);
  }
  EXPECT_EQ(device_.resets, 0);
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

// Any register, any width, any order, and the queues full of rubbish; then it must still work.
TEST_F(PciTransportTest, SurvivesRandomAccessesAndWorksAfterAReset) {
  for (uint32_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    uint64_t bar = driver_.bar();
    for (int i = 0; i < 2000; ++i) {
      // Mostly the common structure, with values that mean something.
      uint64_t offset = random() % 4 ? random() % 0x40 : random() % 0x8000;
      size_t size = 1 + random() % 8;
      std::array<uint8_t, 8> data{};
      uint64_t value = random() % 2 ? random() % 256 : uint64_t{random()} << (random() % 33);
      base::store_le(data, 0, value);
      auto bytes = std::span(data).first(size);
      switch (random() % 8) {
        case 0:
          mmio_.read(bar + offset, bytes);
          break;
        case 1:
          pio_.write(0xCF8, std::span(data).first(4));
          pio_.read(0xCFC, std::span(data).first(4));
          break;
        case 2:
          // Anything but the BAR, so that the device stays where the test looks for it.
          driver_.set_config<uint8_t>(0x14 + random() % 0xEC, static_cast<uint8_t>(value));
          break;
        case 3:
          interrupts_.ring(driver_.doorbell(random() % 2));
          break;
        default:
          mmio_.write(bar + offset, bytes);
      }
    }
    settle();
    driver_.set_status(0);
    ASSERT_EQ(driver_.status(), 0);
    start();
    ASSERT_FALSE(HasFatalFailure());
    uint32_t table = driver_.config<uint32_t>(driver_.msix_capability + 4u) & ~7u;
    ASSERT_EQ(table, 0x4000u);
    unsigned before = signals(1);
    queue0_->add(0, {{kData, 1}}, {});
    driver_.kick(0);
    settle();
    ASSERT_EQ(queue0_->used_index(), 1);
    ASSERT_EQ(signals(1), before + 1);
    driver_.set_status(0);
  }
  EXPECT_EQ(interrupts_.unrouted(), 0u);
}

TEST_F(PciTransportTest, CreationFailsWhereSlotsOrMemoryRunOut) {
  std::vector<std::unique_ptr<FakeDevice>> devices;
  std::vector<std::unique_ptr<PciTransport>> transports;
  for (int i = 2; i < 32; ++i) {
    devices.push_back(std::make_unique<FakeDevice>());
    transports.push_back(add(*devices.back()));
  }
  size_t doorbells = interrupts_.doorbells().size();
  FakeDevice more;
  EXPECT_FALSE(
      PciTransport::create({*memory_, mmio_, interrupts_, interrupts_, root_, *loop_}, more));
  EXPECT_EQ(interrupts_.doorbells().size(), doorbells);  // nothing of it is left behind
}

}  // namespace
}  // namespace virtio
