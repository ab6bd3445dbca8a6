// The common configuration's part of a saved virtio device. Format: driver features, both feature
// selects, queue select, configuration vector, status, generation, number of queues; for each queue
// size, vector, enabled, and the addresses of its three parts.
#include <fmt/format.h>

#include "devices/virtio/common_config.h"
#include "devices/virtio/device.h"

namespace virtio {

using base::fail;
using base::Result;

void CommonConfig::save(base::Encoder& to) const {
  to.u64(driver_features_);
  to.u32(device_feature_select_);
  to.u32(driver_feature_select_);
  to.u16(queue_select_);
  to.u16(config_vector_);
  to.u8(status_);
  to.u8(generation_);
  to.u16(static_cast<uint16_t>(queues_.size()));
  for (const Queue& queue : queues_) {
    to.u16(queue.size);
    to.u16(queue.vector);
    to.boolean(queue.enabled);
    to.u64(queue.descriptors);
    to.u64(queue.avail);
    to.u64(queue.used);
  }
}

Result<void> CommonConfig::restore(base::Decoder& from) {
  driver_features_ = from.u64();
  device_feature_select_ = from.u32();
  driver_feature_select_ = from.u32();
  queue_select_ = from.u16();
  config_vector_ = from.u16();
  status_ = from.u8();
  generation_ = from.u8();
  if (uint16_t count = from.u16(); count != queues_.size()) {
    return fail(fmt::format("{} queues, this device has {}", count, queues_.size()));
  }
  if (config_vector_ != checked_vector(config_vector_)) {
    return fail(fmt::format("configuration vector {} of {}", config_vector_, vectors_));
  }
  TRY(check_status());
  for (Queue& queue : queues_) TRY(restore_queue(from, queue));
  return {};
}

Result<void> CommonConfig::check_status() const {
  if (status_ & kStatusFeaturesOk) {
    if (uint64_t unknown = driver_features_ & ~features_; unknown != 0) {
      return fail(
          fmt::format("the guest uses features {:#x}, which this device does not offer", unknown));
    }
    if (!(driver_features_ & kFeatureVersion1)) return fail("a driver of before virtio 1.0");
  } else if (status_ & kStatusDriverOk) {
    return fail("a driver that runs without having agreed on features");
  }
  return {};
}

// Where the parts lie is checked when the queue is made.
Result<void> CommonConfig::restore_queue(base::Decoder& from, Queue& queue) const {
  queue.size = from.u16();
  queue.vector = from.u16();
  queue.enabled = from.boolean();
  queue.descriptors = from.u64();
  queue.avail = from.u64();
  queue.used = from.u64();
  if (queue.size > queue.max_size) {
    return fail(
        fmt::format("a queue of {} entries, at most {} are possible", queue.size, queue.max_size));
  }
  if (queue.vector != checked_vector(queue.vector)) {
    return fail(fmt::format("queue vector {} of {}", queue.vector, vectors_));
  }
  return {};
}

}  // namespace virtio
