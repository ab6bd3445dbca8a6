// The balloon in a snapshot. Format: target and actual pages, whether the driver still has to hear
// of the target, whether statistics were asked for, then for each tag whether it is known and its
// value. The driver's statistics buffer is a request in flight of its queue.
#include <fmt/format.h>

#include "devices/virtio/balloon.h"
#include "vmm/guest_address.h"

namespace virtio {

using base::Result;

void Balloon::save(base::Encoder& to) const {
  to.u32(target_pages_);
  to.u32(actual_pages_);
  to.boolean(target_changed_);
  to.boolean(statistics_wanted_);
  for (const auto& value : statistics_) {
    to.boolean(value.has_value());
    to.u64(value.value_or(0));
  }
}

Result<void> Balloon::restore(base::Decoder& from) {
  uint32_t target = from.u32();
  uint32_t actual = from.u32();
  if (uint64_t pages = options_.guest_bytes >> vmm::kPageShift; target > pages) {
    return base::fail(fmt::format("balloon target of {} pages, the guest has {}", target, pages));
  }
  target_pages_ = target;
  actual_pages_ = actual;  // whatever the guest says
  target_changed_ = from.boolean();
  statistics_wanted_ = from.boolean();
  for (auto& value : statistics_) {
    bool known = from.boolean();
    uint64_t saved = from.u64();
    if (!known && saved != 0) return base::fail("balloon statistic with a value but not known");
    value = known ? std::optional(saved) : std::nullopt;
  }
  // For activate(): its watch is what looks at both.
  if (target_changed_ || statistics_wanted_) asked_.signal();
  return {};
}

void Balloon::list_in_flight(uint16_t queue, std::vector<uint16_t>& heads) const {
  if (queue == kStatisticsQueue && statistics_buffer_) heads.push_back(*statistics_buffer_);
}

Result<void> Balloon::resume(uint16_t queue, std::span<const uint16_t> heads) {
  if (queue != kStatisticsQueue || role(queue) != Role::kStatistics || heads.size() > 1) {
    return base::fail("balloon holds more than one statistics buffer");
  }
  if (!heads.empty()) statistics_buffer_ = heads.front();
  return {};
}

}  // namespace virtio
