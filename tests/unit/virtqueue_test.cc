#include "devices/virtio/virtqueue.h"

#include <gtest/gtest.h>

#include "tests/support/driver_queue.h"

namespace virtio {
namespace {

using testing_support::DriverQueue;
using vmm::Gpa;

constexpr Gpa kQueue{0x10000};
constexpr Gpa kData{0x20000};

class VirtqueueTest : public ::testing::Test {
 protected:
  std::unique_ptr<vmm::GuestMemory> memory_ = std::move(*vmm::GuestMemory::create(1 << 20));
  DriverQueue driver_{*memory_, kQueue, 8};

  Virtqueue make(bool event_index = false, bool indirect = true) {
    return std::move(*Virtqueue::create(*memory_, driver_.layout(event_index, indirect)));
  }
  // Pops once and gives the error's text, "" where the chain was good.
  std::string pop_error(Virtqueue queue) {
    DescriptorChain chain;
    auto popped = queue.pop(chain);
    return popped ? "" : popped.error().text();
  }
};

TEST_F(VirtqueueTest, PopsAChainAndGivesItBack) {
  auto queue = make();
  DescriptorChain chain;
  EXPECT_FALSE(*queue.pop(chain));
  driver_.add(3, {{kData, 16}, {kData + 16, 4}}, {{kData + 4096, 512}});
  ASSERT_TRUE(*queue.pop(chain));
  EXPECT_EQ(chain.head, 3);
  ASSERT_EQ(chain.readable.size(), 2u);
  EXPECT_EQ(chain.readable[1].gpa, kData + 16);
  EXPECT_EQ(chain.readable_bytes(), 20u);
  EXPECT_EQ(chain.writable_bytes(), 512u);
  EXPECT_FALSE(*queue.pop(chain));
  ASSERT_TRUE(queue.push(3, 77));
  EXPECT_EQ(driver_.used_index(), 1);
  EXPECT_EQ(driver_.used(0).id, 3u);
  EXPECT_EQ(driver_.used(0).length, 77u);
  EXPECT_TRUE(memory_->is_dirty(kQueue.gfn()));
}

TEST_F(VirtqueueTest, UsedEntriesAppearAtOnceWhenPublished) {
  auto queue = make();
  ASSERT_TRUE(queue.add_used(1, 10));
  ASSERT_TRUE(queue.add_used(2, 20));
  EXPECT_EQ(driver_.used_index(), 0);
  ASSERT_TRUE(queue.publish_used());
  EXPECT_EQ(driver_.used_index(), 2);
  EXPECT_EQ(driver_.used(0).id, 1u);
  EXPECT_EQ(driver_.used(1).length, 20u);
}

TEST_F(VirtqueueTest, IndicesWrapAroundSixteenBits) {
  auto queue = std::move(
      *Virtqueue::create(*memory_, driver_.layout(), {.next_avail = 65533, .next_used = 65533}));
  driver_.set_avail_index(65533);
  DescriptorChain chain;
  for (int i = 0; i < 6; ++i) {
    driver_.add(static_cast<uint16_t>(i), {{kData, 1}}, {});
    ASSERT_TRUE(*queue.pop(chain));
    EXPECT_EQ(chain.head, i);
    ASSERT_TRUE(queue.push(chain.head, 0));
  }
  EXPECT_EQ(driver_.used_index(), 3);
  EXPECT_EQ(queue.position().next_avail, 3);
}

TEST_F(VirtqueueTest, FollowsAnIndirectTable) {
  auto queue = make();
  DriverQueue::Descriptor table[2] = {
      {kData.value, 8, DriverQueue::kNext, 1},
      {kData.value + 64, 32, DriverQueue::kWrite, 0},
  };
  ASSERT_TRUE(memory_->store(kData + 4096, table));
  driver_.set_descriptor(5, {kData.value + 4096, sizeof table, DriverQueue::kIndirect, 0});
  driver_.publish(5);
  DescriptorChain chain;
  ASSERT_TRUE(*queue.pop(chain));
  EXPECT_EQ(chain.head, 5);
  EXPECT_EQ(chain.readable_bytes(), 8u);
  EXPECT_EQ(chain.writable_bytes(), 32u);
}

TEST_F(VirtqueueTest, RefusesAHostileDriver) {
  using D = DriverQueue;
  struct Case {
    const char* what;
    D::Descriptor first, second;
    const char* message;
  } cases[] = {
      {"loop", {kData.value, 4, D::kNext, 1}, {kData.value, 4, D::kNext, 0}, "loop"},
      {"next out of range", {kData.value, 4, D::kNext, 8}, {}, "descriptor 8 of 8"},
      {"outside RAM", {1 << 20, 4, 0, 0}, {}, "not RAM"},
      {"leaves RAM", {(1 << 20) - 2, 4, 0, 0}, {}, "not RAM"},
      {"address wraps", {~0ull - 1, 4, 0, 0}, {}, "not RAM"},
      {"read after write",
       {kData.value, 4, D::kNext | D::kWrite, 1},
       {kData.value, 4, 0, 0},
       "after a writable"},
      {"indirect length", {kData.value, 17, D::kIndirect, 0}, {}, "indirect table of 17"},
      {"indirect empty", {kData.value, 0, D::kIndirect, 0}, {}, "indirect table of 0"},
      {"indirect huge", {kData.value, 16 << 20, D::kIndirect, 0}, {}, "indirect table of"},
      {"indirect outside", {1 << 20, 32, D::kIndirect, 0}, {}, "not RAM"},
      {"indirect and next", {kData.value, 32, D::kIndirect | D::kNext, 1}, {}, "with a next"},
  };
  for (const Case& bad : cases) {
    DriverQueue driver(*memory_, kQueue, 8);
    driver.set_descriptor(0, bad.first);
    driver.set_descriptor(1, bad.second);
    driver.publish(0);
    EXPECT_NE(pop_error(make()).find(bad.message), std::string::npos) << bad.what;
  }
}

TEST_F(VirtqueueTest, RefusesAHeadOutsideTheTableAndARunawayIndex) {
  driver_.publish(8);
  EXPECT_NE(pop_error(make()).find("descriptor 8 of 8"), std::string::npos);
  driver_.set_avail_index(9);
  EXPECT_NE(pop_error(make()).find("ahead"), std::string::npos);
}

TEST_F(VirtqueueTest, RefusesMoreRequestsInFlightThanDescriptors) {
  auto queue = make();
  DescriptorChain chain;
  for (uint16_t i = 0; i < 8; ++i) {
    driver_.add(i, {{kData, 1}}, {});
    ASSERT_TRUE(*queue.pop(chain));
  }
  EXPECT_FALSE(*queue.pop(chain));
  driver_.add(0, {{kData, 1}}, {});  // a head that the device still has
  EXPECT_NE(pop_error(queue).find("more requests than descriptors"), std::string::npos);
  ASSERT_TRUE(queue.push(0, 0));
  EXPECT_TRUE(*queue.pop(chain));
}

TEST_F(VirtqueueTest, RefusesIndirectInsideIndirectAndWithoutTheFeature) {
  DriverQueue::Descriptor inner = {kData.value, 16, DriverQueue::kIndirect, 0};
  ASSERT_TRUE(memory_->store(kData, inner));
  driver_.set_descriptor(0, {kData.value, 16, DriverQueue::kIndirect, 0});
  driver_.publish(0);
  EXPECT_NE(pop_error(make()).find("inside an indirect"), std::string::npos);
  EXPECT_NE(pop_error(make(false, false)).find("without the feature"), std::string::npos);
}

TEST_F(VirtqueueTest, BoundsTheTotalLengthOfAChain) {
  auto big = std::move(*vmm::GuestMemory::create(3ull << 30));
  DriverQueue driver(*big, kQueue, 8);
  driver.add(0, {{Gpa{0}, 0xB0000000}, {Gpa{0}, 0xB0000000}}, {});
  auto queue = std::move(*Virtqueue::create(*big, driver.layout()));
  EXPECT_NE(pop_error(queue).find("4 GiB"), std::string::npos);
}

TEST_F(VirtqueueTest, RefusesABadLayout) {
  auto broken = [&](auto change) {
    auto layout = driver_.layout();
    change(layout);
    return !Virtqueue::create(*memory_, layout).has_value();
  };
  EXPECT_TRUE(broken([](auto& l) { l.size = 0; }));
  EXPECT_TRUE(broken([](auto& l) { l.size = 3; }));
  EXPECT_TRUE(broken([](auto& l) { l.size = 2048; }));
  EXPECT_TRUE(broken([](auto& l) { l.descriptors.value += 8; }));
  EXPECT_TRUE(broken([](auto& l) { l.avail.value += 1; }));
  EXPECT_TRUE(broken([](auto& l) { l.used.value += 2; }));
  EXPECT_TRUE(broken([](auto& l) { l.used = Gpa{(1 << 20) - 64}; }));
  EXPECT_TRUE(broken([](auto& l) { l.descriptors = Gpa{~0ull << 4}; }));
  EXPECT_FALSE(broken([](auto&) {}));
}

TEST_F(VirtqueueTest, InterruptsByFlag) {
  auto queue = make();
  EXPECT_FALSE(*queue.needs_interrupt());  // nothing pushed
  ASSERT_TRUE(queue.push(0, 0));
  EXPECT_TRUE(*queue.needs_interrupt());
  EXPECT_FALSE(*queue.needs_interrupt());
  driver_.set_avail_flags(1);
  ASSERT_TRUE(queue.push(0, 0));
  EXPECT_FALSE(*queue.needs_interrupt());
}

TEST_F(VirtqueueTest, InterruptsByEventIndex) {
  auto queue = make(true);
  driver_.set_used_event(2);  // wants one when the third entry is used
  ASSERT_TRUE(queue.push(0, 0));
  EXPECT_FALSE(*queue.needs_interrupt());
  ASSERT_TRUE(queue.push(0, 0));
  EXPECT_FALSE(*queue.needs_interrupt());
  ASSERT_TRUE(queue.push(0, 0));
  EXPECT_TRUE(*queue.needs_interrupt());
  ASSERT_TRUE(queue.push(0, 0));
  EXPECT_FALSE(*queue.needs_interrupt());
}

TEST_F(VirtqueueTest, EnableKicksSeesWhatCameMeanwhile) {
  for (bool event_index : {false, true}) {
    DriverQueue driver(*memory_, kQueue, 8);
    auto queue = std::move(*Virtqueue::create(*memory_, driver.layout(event_index)));
    ASSERT_TRUE(queue.disable_kicks());
    EXPECT_EQ(driver.used_flags(), event_index ? 0 : 1);
    driver.add(0, {{kData, 1}}, {});
    EXPECT_TRUE(*queue.enable_kicks());
    DescriptorChain chain;
    ASSERT_TRUE(*queue.pop(chain));
    EXPECT_FALSE(*queue.enable_kicks());
    EXPECT_EQ(driver.used_flags(), 0);
    if (event_index) {
      EXPECT_EQ(driver.avail_event(), 1);
    }
  }
}

TEST_F(VirtqueueTest, UnpopGivesTheSameRequestAgain) {
  auto queue = make();
  driver_.add(2, {{kData, 1}}, {});
  DescriptorChain chain;
  ASSERT_TRUE(*queue.pop(chain));
  queue.unpop();
  ASSERT_TRUE(*queue.pop(chain));
  EXPECT_EQ(chain.head, 2);
}

}  // namespace
}  // namespace virtio
