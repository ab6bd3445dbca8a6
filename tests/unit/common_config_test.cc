#include "devices/virtio/common_config.h"

#include <gtest/gtest.h>

#include <array>

#include "devices/virtio/device.h"
#include "vmm/base/endian.h"

namespace virtio {
namespace {

using Action = CommonConfig::Action;

class CommonConfigTest : public ::testing::Test {
 protected:
  static constexpr uint64_t kOffered = kFeatureVersion1 | kFeatureIndirect | 1;
  static constexpr uint8_t kReady = kStatusAcknowledge | kStatusDriver | kStatusFeaturesOk;

  CommonConfig config_{kOffered, 3, {256, 64}};

  template <typename T>
  T read(uint32_t offset) {
    uint8_t data[sizeof(T)];
    config_.read(offset, data);
    return base::load_le<T>(data);
  }
  template <typename T>
  Action write(uint32_t offset, T value) {
    uint8_t data[sizeof(T)];
    base::store_le(data, 0, value);
    return config_.write(offset, data);
  }
  void accept(uint64_t features) {
    for (uint32_t half = 0; half < 2; ++half) {
      write<uint32_t>(0x08, half);
      write<uint32_t>(0x0C, static_cast<uint32_t>(features >> (32 * half)));
    }
  }
  Action status(uint8_t value) { return write<uint8_t>(0x14, value); }
  uint8_t status() { return read<uint8_t>(0x14); }
};

TEST_F(CommonConfigTest, OffersItsFeaturesByHalves) {
  EXPECT_EQ(read<uint32_t>(0x04), static_cast<uint32_t>(kOffered));
  write<uint32_t>(0x00, 1);
  EXPECT_EQ(read<uint32_t>(0x04), 1u);  // VERSION_1
  write<uint32_t>(0x00, 2);
  EXPECT_EQ(read<uint32_t>(0x04), 0u);
  write<uint32_t>(0x00, ~0u);
  EXPECT_EQ(read<uint32_t>(0x04), 0u);
  EXPECT_EQ(read<uint32_t>(0x00), ~0u);
}

TEST_F(CommonConfigTest, TakesTheDriversFeatures) {
  accept(kFeatureVersion1 | 1);
  write<uint32_t>(0x08, 2);  // a half that does not exist
  write<uint32_t>(0x0C, ~0u);
  EXPECT_EQ(config_.driver_features(), kFeatureVersion1 | 1);
  status(kReady);
  EXPECT_EQ(status(), kReady);
  // Settled: later writes change nothing.
  accept(0);
  EXPECT_EQ(config_.driver_features(), kFeatureVersion1 | 1);
}

TEST_F(CommonConfigTest, FeaturesOkDoesNotStickForFeaturesItDoesNotOffer) {
  accept(kFeatureVersion1 | 2);
  status(kReady);
  EXPECT_EQ(status(), kStatusAcknowledge | kStatusDriver);
  EXPECT_EQ(status(kReady | kStatusDriverOk), Action::kNone);  // not that way either
  EXPECT_FALSE(status() & kStatusDriverOk);
  accept(kFeatureVersion1);
  status(kReady);
  EXPECT_EQ(status(), kReady);
}

TEST_F(CommonConfigTest, FeaturesOkNeedsVersionOne) {
  accept(1);
  status(kReady);
  EXPECT_FALSE(status() & kStatusFeaturesOk);
}

TEST_F(CommonConfigTest, DriverOkActivatesOnce) {
  accept(kFeatureVersion1);
  EXPECT_EQ(status(kStatusAcknowledge), Action::kNone);
  EXPECT_EQ(status(kReady), Action::kNone);
  EXPECT_EQ(status(kReady | kStatusDriverOk), Action::kActivate);
  EXPECT_EQ(status(kReady | kStatusDriverOk), Action::kNone);
  EXPECT_EQ(status(kStatusFailed), Action::kNone);
  EXPECT_EQ(status(), kReady | kStatusDriverOk | kStatusFailed);  // bits are only added
}

TEST_F(CommonConfigTest, DriverOkWithoutFeaturesOkDoesNotStart) {
  accept(kFeatureVersion1);
  EXPECT_EQ(status(kStatusAcknowledge | kStatusDriver | kStatusDriverOk), Action::kNone);
  EXPECT_FALSE(status() & kStatusDriverOk);
}

TEST_F(CommonConfigTest, NeedsResetIsTheDevicesToSetAndOnlyAResetClearsIt) {
  status(kStatusNeedsReset | kStatusAcknowledge);
  EXPECT_EQ(status(), kStatusAcknowledge);
  config_.set_needs_reset();
  status(kStatusDriver);
  EXPECT_EQ(status(), kStatusAcknowledge | kStatusDriver | kStatusNeedsReset);
  EXPECT_EQ(status(0), Action::kReset);
  EXPECT_NE(status(), 0);  // the transport says when the reset is done
  config_.reset();
  EXPECT_EQ(status(), 0);
}

TEST_F(CommonConfigTest, DescribesItsQueues) {
  EXPECT_EQ(read<uint16_t>(0x12), 2);
  EXPECT_EQ(read<uint16_t>(0x18), 256);
  EXPECT_EQ(read<uint16_t>(0x1C), 0);
  EXPECT_EQ(read<uint16_t>(0x1E), 0);
  write<uint16_t>(0x16, 1);
  EXPECT_EQ(read<uint16_t>(0x18), 64);
  EXPECT_EQ(read<uint16_t>(0x1E), 1);
  for (uint16_t absent : {2, 3, 0x7FFF, 0xFFFF}) {
    write<uint16_t>(0x16, absent);
    EXPECT_EQ(read<uint16_t>(0x18), 0);
    EXPECT_EQ(read<uint16_t>(0x1A), kNoVector);
    write<uint16_t>(0x1A, 1);
    write<uint16_t>(0x1C, 1);
    write<uint64_t>(0x20, 0x1000);
    EXPECT_EQ(read<uint16_t>(0x1A), kNoVector);
    EXPECT_EQ(read<uint16_t>(0x1C), 0);
    EXPECT_EQ(read<uint64_t>(0x20), 0u);
  }
}

TEST_F(CommonConfigTest, TakesAQueuesPlaceWholeAndByHalves) {
  accept(kFeatureVersion1 | kFeatureIndirect);
  write<uint16_t>(0x18, 32);
  write<uint64_t>(0x20, 0x1'2345'6780);
  write<uint32_t>(0x28, 0x1000);
  write<uint32_t>(0x2C, 1);
  write<uint32_t>(0x34, 2);
  write<uint32_t>(0x30, 0x2000);
  EXPECT_EQ(read<uint32_t>(0x20), 0x2345'6780u);
  EXPECT_EQ(read<uint32_t>(0x24), 1u);
  QueueLayout layout = config_.queue_layout(0);
  EXPECT_EQ(layout.size, 32);
  EXPECT_EQ(layout.descriptors.value, 0x1'2345'6780u);
  EXPECT_EQ(layout.avail.value, 0x1'0000'1000u);
  EXPECT_EQ(layout.used.value, 0x2'0000'2000u);
  EXPECT_TRUE(layout.indirect);
  EXPECT_FALSE(layout.event_index);
}

TEST_F(CommonConfigTest, AQueueSizeIsBoundedByWhatWasOffered) {
  write<uint16_t>(0x18, 0xFFFF);
  EXPECT_EQ(read<uint16_t>(0x18), 256);
  write<uint16_t>(0x18, 0);
  EXPECT_EQ(read<uint16_t>(0x18), 0);
}

TEST_F(CommonConfigTest, AnEnabledQueueStaysAsItIs) {
  write<uint64_t>(0x20, 0x1000);
  write<uint16_t>(0x1C, 1);
  EXPECT_EQ(read<uint16_t>(0x1C), 1);
  write<uint16_t>(0x1C, 0);  // the driver must not, and it does nothing
  write<uint16_t>(0x18, 8);
  write<uint64_t>(0x20, 0x9000);
  EXPECT_EQ(read<uint16_t>(0x1C), 1);
  EXPECT_EQ(read<uint16_t>(0x18), 256);
  EXPECT_EQ(read<uint64_t>(0x20), 0x1000u);
  write<uint16_t>(0x1A, 2);  // but its vector may change
  EXPECT_EQ(read<uint16_t>(0x1A), 2);
}

TEST_F(CommonConfigTest, AQueueIsNotEnabledAfterDriverOk) {
  accept(kFeatureVersion1);
  ASSERT_EQ(status(kReady | kStatusDriverOk), Action::kActivate);
  write<uint16_t>(0x1C, 1);
  write<uint64_t>(0x28, 0x5000);
  EXPECT_EQ(read<uint16_t>(0x1C), 0);
  EXPECT_EQ(read<uint64_t>(0x28), 0u);
}

TEST_F(CommonConfigTest, AVectorThatDoesNotExistReadsBackAsNone) {
  write<uint16_t>(0x10, 2);
  EXPECT_EQ(read<uint16_t>(0x10), 2);
  write<uint16_t>(0x10, 3);
  EXPECT_EQ(read<uint16_t>(0x10), kNoVector);
  write<uint16_t>(0x1A, 3);
  EXPECT_EQ(read<uint16_t>(0x1A), kNoVector);
}

TEST_F(CommonConfigTest, GenerationCountsAndIsReadOnly) {
  uint8_t before = read<uint8_t>(0x15);
  config_.count_generation();
  EXPECT_NE(read<uint8_t>(0x15), before);
  before = read<uint8_t>(0x15);
  write<uint8_t>(0x15, 99);
  EXPECT_EQ(read<uint8_t>(0x15), before);
}

TEST_F(CommonConfigTest, ResetTakesEverythingBack) {
  CommonConfig fresh = config_;
  accept(kFeatureVersion1);
  write<uint16_t>(0x10, 1);
  write<uint16_t>(0x16, 1);
  write<uint16_t>(0x18, 4);
  write<uint16_t>(0x1A, 1);
  write<uint64_t>(0x30, 0x4000);
  write<uint16_t>(0x1C, 1);
  status(kReady | kStatusDriverOk);
  config_.reset();
  for (uint32_t offset = 0; offset < CommonConfig::kSize; ++offset) {
    uint8_t now[8], then[8];
    config_.read(offset, now);
    fresh.read(offset, then);
    EXPECT_EQ(base::load_le<uint64_t>(now), base::load_le<uint64_t>(then)) << offset;
  }
  EXPECT_EQ(config_.driver_features(), 0u);
  EXPECT_FALSE(config_.queues()[1].enabled);
}

TEST_F(CommonConfigTest, OddOffsetsAndWidthsAreHarmless) {
  std::array<uint8_t, 8> data;
  for (uint32_t offset : {0x01u, 0x0Du, 0x15u, 0x21u, 0x22u, 0x37u, 0x38u, 0x39u, 0xFFFu}) {
    for (size_t size = 1; size <= 8; ++size) {
      data.fill(0xFF);
      EXPECT_EQ(config_.write(offset, std::span(data).first(size)), Action::kNone) << offset;
      config_.read(offset, std::span(data).first(size));
    }
  }
  for (uint16_t queue : {0, 1}) {
    EXPECT_EQ(config_.queues()[queue].descriptors, 0u);
    EXPECT_EQ(config_.queues()[queue].used, 0u);
    EXPECT_FALSE(config_.queues()[queue].enabled);
  }
}

}  // namespace
}  // namespace virtio
