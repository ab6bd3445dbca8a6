// The transport as a PCI function: its structures, where its BAR is, the window to it, and any
// access whatever to its registers.
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <random>
#include <thread>
#include <vector>

#include "devices/virtio/pci_transport.h"
#include "tests/support/transport_fixture.h"
#include "vmm/layout.h"

namespace virtio {
namespace {

using testing_support::FakeDevice;
using testing_support::PciDriver;
using vmm::Gpa;

constexpr Gpa kData{0x80000};
constexpr uint64_t kFeatures = kFeatureVersion1 | kFeatureIndirect | kFeatureEventIndex;

class PciTransportBarTest : public testing_support::TransportFixture {};

TEST_F(PciTransportBarTest, ShowsAVirtioBlockDeviceWithAllStructures) {
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

TEST_F(PciTransportBarTest, TheBarMovesAndItsDoorbellsWithIt) {
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

TEST_F(PciTransportBarTest, SizingTheBarWithDecodingOffLeavesItWhereItWas) {
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

TEST_F(PciTransportBarTest, ABarOnTopOfAnotherDeviceIsNowhereUntilItMoves) {
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
TEST_F(PciTransportBarTest, TheBarMovesWhileOthersUseTheDevice) {
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

TEST_F(PciTransportBarTest, TheWindowInConfigurationSpaceReachesTheBar) {
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

TEST_F(PciTransportBarTest, TheWindowRefusesNonsense) {
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

// Any register, any width, any order, and the queues full of rubbish; then it must still work.
TEST_F(PciTransportBarTest, SurvivesRandomAccessesAndWorksAfterAReset) {
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

TEST_F(PciTransportBarTest, CreationFailsWhereSlotsOrMemoryRunOut) {
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
