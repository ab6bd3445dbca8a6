#include "devices/virtio/common_config.h"

#include <algorithm>

#include "devices/virtio/device.h"
#include "vmm/base/endian.h"

namespace virtio {

namespace {

// Offsets and widths of the fields (virtio 1.2, 4.1.4.3).
enum Field : uint32_t {
  kDeviceFeatureSelect = 0x00,
  kDeviceFeature = 0x04,
  kDriverFeatureSelect = 0x08,
  kDriverFeature = 0x0C,
  kConfigVector = 0x10,
  kNumQueues = 0x12,
  kStatus = 0x14,
  kGeneration = 0x15,
  kQueueSelect = 0x16,
  kQueueSize = 0x18,
  kQueueVector = 0x1A,
  kQueueEnable = 0x1C,
  kQueueNotifyOff = 0x1E,
  kQueueDescriptors = 0x20,
  kQueueDriver = 0x28,
  kQueueDevice = 0x30,
};

// The 32-bit half of a 64-bit value; halves beyond the second are 0.
uint32_t half(uint64_t value, uint32_t select) {
  return select < 2 ? static_cast<uint32_t>(value >> (32 * select)) : 0;
}
void set_half(uint64_t& value, bool high, uint64_t part) {
  value = high ? (value & 0xFFFF'FFFF) | part << 32 : (value & ~0xFFFF'FFFFull) | (part & ~0u);
}

}  // namespace

CommonConfig::CommonConfig(uint64_t features, uint16_t vectors,
                           const std::vector<uint16_t>& queue_sizes)
    : features_(features), vectors_(vectors) {
  for (uint16_t size : queue_sizes) queues_.push_back({.max_size = size, .size = size});
}

void CommonConfig::reset() {
  std::vector<uint16_t> sizes;
  sizes.reserve(queues_.size());
  for (const Queue& queue : queues_) sizes.push_back(queue.max_size);
  *this = CommonConfig(features_, vectors_, sizes);
}

QueueLayout CommonConfig::queue_layout(uint16_t index) const {
  const Queue& queue = queues_[index];
  return {.size = queue.size,
          .descriptors = vmm::Gpa{queue.descriptors},
          .avail = vmm::Gpa{queue.avail},
          .used = vmm::Gpa{queue.used},
          .event_index = (driver_features_ & kFeatureEventIndex) != 0,
          .indirect = (driver_features_ & kFeatureIndirect) != 0};
}

CommonConfig::Queue* CommonConfig::selected() {
  return queue_select_ < queues_.size() ? &queues_[queue_select_] : nullptr;
}
const CommonConfig::Queue* CommonConfig::selected() const {
  return queue_select_ < queues_.size() ? &queues_[queue_select_] : nullptr;
}

void CommonConfig::read(uint32_t offset, std::span<uint8_t> data) const {
  // A field is read whole, or a 64-bit address by halves.
  base::store_register(data, field(offset));
}

uint64_t CommonConfig::field(uint32_t offset) const {
  const Queue* queue = selected();
  switch (offset) {
    case kDeviceFeatureSelect:
      return device_feature_select_;
    case kDeviceFeature:
      return half(features_, device_feature_select_);
    case kDriverFeatureSelect:
      return driver_feature_select_;
    case kDriverFeature:
      return half(driver_features_, driver_feature_select_);
    case kConfigVector:
      return config_vector_;
    case kNumQueues:
      return queues_.size();
    case kStatus:
      return status_;
    case kGeneration:
      return generation_;
    case kQueueSelect:
      return queue_select_;
    case kQueueSize:
      return queue ? queue->size : 0;  // 0: there is no such queue
    case kQueueVector:
      return queue ? queue->vector : kNoVector;
    case kQueueEnable:
      return queue && queue->enabled;
    case kQueueNotifyOff:
      return queue_select_;
    case kQueueDescriptors:
      return queue ? queue->descriptors : 0;
    case kQueueDescriptors + 4:
      return queue ? queue->descriptors >> 32 : 0;
    case kQueueDriver:
      return queue ? queue->avail : 0;
    case kQueueDriver + 4:
      return queue ? queue->avail >> 32 : 0;
    case kQueueDevice:
      return queue ? queue->used : 0;
    case kQueueDevice + 4:
      return queue ? queue->used >> 32 : 0;
    default:
      return 0;
  }
}

CommonConfig::Action CommonConfig::write(uint32_t offset, std::span<const uint8_t> data) {
  uint64_t value = base::load_register(data);
  if (offset == kStatus) return set_status(static_cast<uint8_t>(value));
  set_field(offset, static_cast<uint32_t>(data.size()), value);
  return Action::kNone;
}

CommonConfig::Action CommonConfig::set_status(uint8_t value) {
  if (value == 0) return Action::kReset;
  // Bits are only ever added by the driver; NEEDS_RESET is ours (virtio 1.2, 2.1.1).
  value |= status_;
  value = static_cast<uint8_t>((value & ~kStatusNeedsReset) | (status_ & kStatusNeedsReset));
  bool accepts = (driver_features_ & ~features_) == 0 && (driver_features_ & kFeatureVersion1);
  // Refusing features: the bit does not stick, the driver reads it back (3.1.1, step 6).
  if (!(status_ & kStatusFeaturesOk) && !accepts) value &= static_cast<uint8_t>(~kStatusFeaturesOk);
  bool starts = (value & kStatusDriverOk) && !(status_ & kStatusDriverOk);
  if (starts && !(value & kStatusFeaturesOk)) return Action::kNone;
  status_ = value;
  return starts ? Action::kActivate : Action::kNone;
}

uint16_t CommonConfig::checked_vector(uint64_t value) const {
  return value < vectors_ ? static_cast<uint16_t>(value) : kNoVector;
}

void CommonConfig::set_field(uint32_t offset, uint32_t width, uint64_t value) {
  switch (offset) {
    case kDeviceFeatureSelect:
      device_feature_select_ = static_cast<uint32_t>(value);
      return;
    case kDriverFeatureSelect:
      driver_feature_select_ = static_cast<uint32_t>(value);
      return;
    case kDriverFeature:
      // Features are settled once the driver said so.
      if (status_ & kStatusFeaturesOk || driver_feature_select_ > 1) return;
      set_half(driver_features_, driver_feature_select_ == 1, value & 0xFFFF'FFFF);
      return;
    case kConfigVector:
      config_vector_ = checked_vector(value);
      return;
    case kQueueSelect:
      queue_select_ = static_cast<uint16_t>(value);
      return;
    default:
      break;
  }
  Queue* queue = selected();
  if (queue == nullptr) return;
  if (offset == kQueueVector) {
    queue->vector = checked_vector(value);
    return;
  }
  // A queue is set up before it is enabled, and enabled before DRIVER_OK.
  if (queue->enabled || status_ & kStatusDriverOk) return;
  switch (offset) {
    case kQueueSize:
      // A size that is no power of two is refused when the queue is made.
      queue->size = static_cast<uint16_t>(std::min<uint64_t>(value & 0xFFFF, queue->max_size));
      return;
    case kQueueEnable:
      queue->enabled = value == 1;
      return;
    default:
      break;
  }
  uint64_t* const addresses[] = {&queue->descriptors, &queue->avail, &queue->used};
  if (offset < kQueueDescriptors || offset >= kSize || offset % 4 != 0) return;
  uint64_t& address = *addresses[(offset - kQueueDescriptors) / 8];
  if (width == 8 && offset % 8 == 0) {
    address = value;
  } else {
    set_half(address, offset % 8 == 4, value & 0xFFFF'FFFF);
  }
}

}  // namespace virtio
