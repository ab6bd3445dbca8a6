// A virtio device's registers, queues and interrupts across a snapshot.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>

#include "devices/virtio/pci_transport.h"
#include "tests/support/fake_device.h"
#include "tests/support/virtio_machine.h"

namespace virtio {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing_support::DriverQueue;
using testing_support::FakeDevice;
using testing_support::PciDriver;
using testing_support::VirtioMachine;
using vmm::Gpa;

constexpr Gpa kData{0x80000};

class PciTransportStateTest : public ::testing::Test {
 protected:
  std::unique_ptr<vmm::GuestMemory> memory_ = std::move(*vmm::GuestMemory::create(1 << 20));
  FakeDevice saved_device_, device_;
  VirtioMachine saved_{*memory_, saved_device_};
  VirtioMachine restored_{*memory_, device_};

  // The device takes `take` chains of queue 0, gives back `give` of them, and holds the rest.
  void take_and_give(uint16_t take, uint16_t give) {
    saved_device_.on_process = [this, take, give](uint16_t queue) -> base::Result<void> {
      if (queue != 0) return {};
      Virtqueue& ring = saved_.transport->queue(0);
      DescriptorChain chain;
      for (uint16_t i = 0; i < take; ++i) {
        TRY_ASSIGN(bool popped, ring.pop(chain));
        if (!popped) return base::fail("the test's queue is empty");
        if (i < give) {
          TRY(ring.push(chain.head, 1));
        } else {
          saved_device_.in_flight[0].push_back(chain.head);
        }
      }
      return {};
    };
    for (uint16_t i = 0; i < take; ++i) saved_.queues[0].add(i, {}, {{kData, 100}});
    saved_.driver.kick(0);
    saved_.settle();
  }
  std::string refusal(std::span<const std::byte> bytes) {
    FakeDevice device;
    VirtioMachine machine(*memory_, device);
    auto restored = machine.restore(bytes);
    return restored ? "accepted" : restored.error().text();
  }
};

// Positions in a saved transport (see pci_transport_state.cc).
constexpr size_t kState = 2, kConfig = 5, kCommon = kConfig + 256, kStatus = kCommon + 20,
                 kFirstQueue = kCommon + 24, kQueueBytes = 29,
                 kMsix = kFirstQueue + 2 * kQueueBytes, kPositions = kMsix + 2 + 3 * 17;

TEST_F(PciTransportStateTest, AnIdleDeviceStaysIdleAndCanBeStarted) {
  auto bytes = saved_.save();
  ASSERT_TRUE(restored_.restore(bytes));
  restored_.wake();
  EXPECT_EQ(restored_.save(), bytes);
  EXPECT_EQ(device_.activations, 0);
  restored_.start();
  restored_.queues[1].add(2, {}, {{kData, 100}});
  restored_.driver.kick(1);
  restored_.settle();
  EXPECT_EQ(restored_.queues[1].used_index(), 1);
}

TEST_F(PciTransportStateTest, SavesTheSameBytesAgainAndTouchesNoMemoryBefore) {
  saved_device_.state = 42;
  saved_.start(5, true);
  saved_.driver.set_common<uint16_t>(PciDriver::kQueueSelect, 1);
  saved_.driver.set_common<uint32_t>(PciDriver::kDeviceFeatureSelect, 1);
  auto bytes = saved_.save();

  // As under lazy restore: there is no memory to look at yet.
  auto elsewhere = std::move(*vmm::GuestMemory::create(1 << 20));
  VirtioMachine blank(*elsewhere, device_);
  std::vector<uint64_t> written(4);  // by the test, when it laid its queues out
  elsewhere->take_dirty(0, written);
  ASSERT_TRUE(blank.restore(bytes));
  EXPECT_EQ(device_.state, 42u);
  EXPECT_EQ(device_.activations, 1);
  EXPECT_EQ(device_.features_accepted, saved_device_.features_accepted);
  EXPECT_EQ(device_.processed[0] + device_.processed[1], 0);
  for (uint64_t gfn = 0; gfn < 256; ++gfn) EXPECT_FALSE(elsewhere->is_dirty(vmm::Gfn{gfn}));
  blank.thaw();
  EXPECT_EQ(blank.save(), bytes);
  EXPECT_EQ(blank.driver.common<uint16_t>(PciDriver::kQueueSelect), 1);
  EXPECT_EQ(blank.driver.common<uint32_t>(PciDriver::kDeviceFeatureSelect), 1u);
  EXPECT_EQ(blank.driver.status(), PciDriver::kReady | kStatusDriverOk);
}

TEST_F(PciTransportStateTest, AQueueGoesOnWhereItWas) {
  saved_.start();
  take_and_give(3, 1);
  EXPECT_EQ(saved_.queues[0].used_index(), 1);
  auto bytes = saved_.save();

  std::vector<uint16_t> resumed;
  device_.on_process = [&](uint16_t queue) -> base::Result<void> {
    if (queue != 0) return {};
    for (uint16_t head : std::exchange(device_.in_flight[0], {})) {
      resumed.push_back(head);
      DescriptorChain chain;
      TRY(restored_.transport->queue(0).retake(head, chain));
      TRY(restored_.transport->queue(0).push(head, static_cast<uint32_t>(chain.writable_bytes())));
    }
    return {};
  };
  ASSERT_TRUE(restored_.restore(bytes));
  // Not woken yet: what is in flight is in the next snapshot too.
  EXPECT_EQ(restored_.save_frozen(), bytes);
  saved_.queues[0].add(5, {}, {{kData, 50}});  // published before the vCPUs stopped, kick lost
  restored_.wake();
  EXPECT_THAT(resumed, ElementsAre(1, 2));
  ASSERT_EQ(restored_.queues[0].used_index(), 4);
  EXPECT_EQ(restored_.queues[0].used(0).id, 0u);
  EXPECT_EQ(restored_.queues[0].used(1).id, 1u);
  EXPECT_EQ(restored_.queues[0].used(1).length, 100u);
  EXPECT_EQ(restored_.queues[0].used(2).id, 2u);
  EXPECT_EQ(restored_.queues[0].used(3).id, 5u);
  EXPECT_EQ(restored_.queues[0].used(3).length, 50u);
}

TEST_F(PciTransportStateTest, EveryQueueIsLookedAtAndEveryVectorRaisedOnce) {
  saved_.start();
  auto bytes = saved_.save();
  ASSERT_TRUE(restored_.restore(bytes));
  EXPECT_EQ(restored_.interrupts.batches, 1u);
  for (size_t vector = 0; vector < 3; ++vector) EXPECT_EQ(restored_.signals(vector), 0u);
  restored_.wake();
  for (size_t vector = 0; vector < 3; ++vector) {
    EXPECT_EQ(restored_.signals(vector), 1u);
    EXPECT_EQ(restored_.interrupts.vector(vector).message,
              (vmm::MsiMessage{0xFEE00000, static_cast<uint32_t>(0x40 + vector)}));
  }
  EXPECT_EQ(restored_.interrupts.unrouted(), 0u);
  EXPECT_EQ(device_.processed[0], 1);
  EXPECT_EQ(device_.processed[1], 1);
  EXPECT_EQ(restored_.driver.read<uint8_t>(restored_.driver.structure[PciDriver::kIsr]), 3);
}

TEST_F(PciTransportStateTest, MessagesThatTheKernelRefusesTogetherAreTriedOneByOne) {
  saved_.start();
  auto bytes = saved_.save();
  restored_.interrupts.refuse_messages = true;
  ASSERT_TRUE(restored_.restore(bytes));
  restored_.interrupts.refuse_messages = false;
  restored_.wake();
  for (size_t vector = 0; vector < 3; ++vector) EXPECT_EQ(restored_.signals(vector), 1u);
  EXPECT_EQ(restored_.interrupts.unrouted(), 0u);
}

TEST_F(PciTransportStateTest, AMaskedVectorThatIsPendingComesWhenItIsUnmasked) {
  saved_.start();
  uint32_t table = saved_.driver.config<uint32_t>(saved_.driver.msix_capability + 4u) & ~7u;
  saved_.driver.write<uint32_t>(table + 16 * 1 + 12, 1);  // masked
  saved_.queues[0].add(0, {}, {{kData, 1}});
  saved_.driver.kick(0);
  saved_.settle();
  ASSERT_EQ(saved_.signals(1), 0u);
  ASSERT_TRUE(restored_.restore(saved_.save()));
  restored_.wake();
  EXPECT_EQ(restored_.signals(1), 0u);
  restored_.driver.write<uint32_t>(table + 16 * 1 + 12, 0);
  EXPECT_EQ(restored_.signals(1), 1u);
}

TEST_F(PciTransportStateTest, AStoppedDeviceStaysStoppedUntilItIsReset) {
  saved_.start();
  saved_.queues[0].set_descriptor(3, {1ull << 40, 16, 0, 0});  // not RAM
  saved_.queues[0].publish(3);
  saved_.driver.kick(0);
  saved_.settle();
  ASSERT_TRUE(saved_.driver.status() & kStatusNeedsReset);
  auto bytes = saved_.save();
  ASSERT_TRUE(restored_.restore(bytes));
  restored_.wake();
  EXPECT_EQ(restored_.driver.status(), saved_.driver.status());
  restored_.driver.kick(0);
  restored_.settle();
  EXPECT_EQ(device_.processed[0], 0);
  restored_.driver.set_status(0);
  EXPECT_EQ(restored_.driver.status(), 0);
  EXPECT_EQ(device_.resets, 1);
}

TEST_F(PciTransportStateTest, AResetThatWasUnderWayIsOver) {
  saved_.start();
  saved_device_.on_reset = [] { return false; };
  saved_.driver.set_status(0);
  ASSERT_NE(saved_.driver.status(), 0);
  ASSERT_TRUE(restored_.restore(saved_.save()));
  restored_.wake();
  EXPECT_EQ(restored_.driver.status(), 0);
  EXPECT_EQ(device_.resets, 1);
  restored_.start();
  EXPECT_EQ(restored_.driver.status(), PciDriver::kReady | kStatusDriverOk);
}

TEST_F(PciTransportStateTest, ABarStaysWhereTheGuestPutIt) {
  saved_.start();
  uint32_t moved = static_cast<uint32_t>(saved_.driver.bar()) + 0x100000;
  saved_.driver.set_config<uint32_t>(pci::kBar0, moved);
  auto bytes = saved_.save();
  ASSERT_TRUE(restored_.restore(bytes));
  restored_.wake();
  EXPECT_EQ(restored_.driver.bar(), moved);
  EXPECT_EQ(restored_.driver.status(), PciDriver::kReady | kStatusDriverOk);
  EXPECT_TRUE(restored_.interrupts.doorbells().contains(restored_.driver.doorbell(0)));
  EXPECT_EQ(restored_.interrupts.doorbells().size(), 2u);

  saved_.driver.set_config<uint16_t>(pci::kCommand, 0);
  FakeDevice hidden_device;
  VirtioMachine hidden(*memory_, hidden_device);
  ASSERT_TRUE(hidden.restore(saved_.save()));
  hidden.wake();
  EXPECT_TRUE(hidden.interrupts.doorbells().empty());
}

TEST_F(PciTransportStateTest, RefusesWhatNoDeviceCanHaveSaved) {
  saved_.start();
  take_and_give(3, 1);
  const auto good = saved_.save();
  ASSERT_EQ(refusal(good), "accepted");
  auto with = [&](size_t at, uint8_t value) {
    auto bytes = good;
    bytes.at(at) = std::byte{value};
    return refusal(bytes);
  };
  EXPECT_THAT(with(0, 1), HasSubstr("virtio device type 1, this device has 2"));
  EXPECT_THAT(with(kState, 9), HasSubstr("device state 9 is not known"));
  EXPECT_THAT(with(kState, 0), HasSubstr("in device state 0"));
  EXPECT_THAT(with(kState, 2), HasSubstr("in device state 2"));
  EXPECT_THAT(with(kConfig - 1, 4), HasSubstr("ISR status 0x4"));
  EXPECT_THAT(with(kConfig, 0x86), HasSubstr("configuration space has 0x86 at 0x0"));
  EXPECT_THAT(with(kCommon, 0xFF), HasSubstr("which this device does not offer"));
  EXPECT_THAT(with(kStatus, kStatusDriverOk), HasSubstr("without having agreed on features"));
  EXPECT_THAT(with(kStatus, 0), HasSubstr("in device state 1"));
  EXPECT_THAT(with(kFirstQueue, 17), HasSubstr("a queue of 17 entries, at most 16"));
  EXPECT_THAT(with(kFirstQueue, 15), HasSubstr("queue size 15 is not a power of two"));
  EXPECT_THAT(with(kFirstQueue + 2, 9), HasSubstr("queue vector 9 of 3"));
  EXPECT_THAT(with(kFirstQueue + 4, 2), HasSubstr("impossible values"));
  EXPECT_THAT(with(kFirstQueue + 8, 0x77), HasSubstr("is not RAM"));
  EXPECT_THAT(with(kMsix, 4), HasSubstr("MSI-X table of 4 vectors"));
  EXPECT_THAT(with(kPositions, 200), HasSubstr("has 199 requests in flight"));
  EXPECT_THAT(with(kPositions + 4, 3), HasSubstr("has 2 requests in flight and lists 3"));
  EXPECT_THAT(with(kPositions + 6, 16), HasSubstr("has descriptor 16 in flight"));
  EXPECT_THAT(with(kPositions + 6, 2), HasSubstr("has descriptor 2 in flight twice"));
  auto bad_device = good;
  bad_device[good.size() - 4] = std::byte{0xAD};
  bad_device[good.size() - 3] = std::byte{0xB};
  EXPECT_THAT(refusal(bad_device), HasSubstr("a bad state"));
}

TEST_F(PciTransportStateTest, RefusesBytesThatAreCutOffOrTooMany) {
  saved_.start();
  take_and_give(3, 1);
  const auto good = saved_.save();
  for (size_t size = 0; size < good.size(); ++size) {
    EXPECT_NE(refusal(std::span(good).first(size)), "accepted") << size;
  }
  auto longer = good;
  longer.push_back(std::byte{0});
  EXPECT_THAT(refusal(longer), HasSubstr("1 bytes too many"));
}

}  // namespace
}  // namespace virtio
