// The common configuration structure of a virtio PCI device (virtio 1.2, 4.1.4.3): features,
// status, and where the driver put its queues. Plain registers; what a status change leads to is
// the transport's business.
//
// Not locked: the transport that owns it is.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "devices/virtio/virtqueue.h"
#include "vmm/base/codec.h"
#include "vmm/base/result.h"

namespace virtio {

inline constexpr uint16_t kNoVector = 0xFFFF;

// Device status bits (virtio 1.2, 2.1).
inline constexpr uint8_t kStatusAcknowledge = 1;
inline constexpr uint8_t kStatusDriver = 2;
inline constexpr uint8_t kStatusDriverOk = 4;
inline constexpr uint8_t kStatusFeaturesOk = 8;
inline constexpr uint8_t kStatusNeedsReset = 64;
inline constexpr uint8_t kStatusFailed = 128;

class CommonConfig {
 public:
  static constexpr uint32_t kSize = 0x38;

  struct Queue {
    uint16_t max_size = 0;
    uint16_t size = 0;
    uint16_t vector = kNoVector;
    bool enabled = false;
    uint64_t descriptors = 0, avail = 0, used = 0;
  };
  enum class Action { kNone, kReset, kActivate };

  CommonConfig(uint64_t features, uint16_t vectors, const std::vector<uint16_t>& queue_sizes);

  // Any offset and width inside or outside the structure.
  void read(uint32_t offset, std::span<uint8_t> data) const;
  // Says what the transport has to do; a reset is not done here, see reset().
  Action write(uint32_t offset, std::span<const uint8_t> data);
  void reset();

  uint8_t status() const { return status_; }
  void set_needs_reset() { status_ |= kStatusNeedsReset; }
  void count_generation() { ++generation_; }
  uint64_t driver_features() const { return driver_features_; }
  uint16_t config_vector() const { return config_vector_; }
  const std::vector<Queue>& queues() const { return queues_; }
  QueueLayout queue_layout(uint16_t index) const;

  // Everything the driver wrote. A restore refuses features this device does not offer, and what no
  // driver could have brought about.
  void save(base::Encoder& to) const;
  base::Result<void> restore(base::Decoder& from);

 private:
  uint64_t field(uint32_t offset) const;
  void set_field(uint32_t offset, uint32_t width, uint64_t value);
  Action set_status(uint8_t value);
  uint16_t checked_vector(uint64_t value) const;
  base::Result<void> restore_queue(base::Decoder& from, Queue& queue) const;
  base::Result<void> check_status() const;
  Queue* selected();
  const Queue* selected() const;

  uint64_t features_;
  uint16_t vectors_;
  uint64_t driver_features_ = 0;
  uint32_t device_feature_select_ = 0;
  uint32_t driver_feature_select_ = 0;
  uint16_t queue_select_ = 0;
  uint16_t config_vector_ = kNoVector;
  uint8_t status_ = 0;
  uint8_t generation_ = 0;
  std::vector<Queue> queues_;
};

}  // namespace virtio
