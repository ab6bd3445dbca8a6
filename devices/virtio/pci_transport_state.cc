// A virtio device in a snapshot. Format: device type, state, BAR mapped, ISR, configuration space,
// common configuration, MSI-X table; where the device was started, for each enabled queue its
// position and the heads of the requests in flight; last what the device itself has to say.
//
// Kept out of it: interrupts and kicks on their way. wake() repeats them all.
#include <fmt/format.h>

#include <algorithm>
#include <cassert>

#include "devices/virtio/pci_transport.h"

namespace virtio {

using base::Result;

void PciTransport::save(base::Encoder& to) {
  to.u16(static_cast<uint16_t>(device_.type()));
  to.u8(static_cast<uint8_t>(state_));
  to.boolean(mapped_.has_value());
  to.u8(isr_);
  config_.save(to);
  registers_.save(to);
  msix_.save(to);
  for (uint16_t i = 0, count = static_cast<uint16_t>(queues_.size()); i < count; ++i) {
    if (state_ != State::kIdle && registers_.queues()[i].enabled) save_queue(i, to);
  }
  device_.save(to);
}

// What a stopped device or one being reset has in flight is never answered: no heads.
void PciTransport::save_queue(uint16_t index, base::Encoder& to) {
  QueuePosition position = queues_[index] ? queues_[index]->position() : QueuePosition{};
  heads_.clear();
  if (state_ == State::kActive) {
    heads_.insert(heads_.end(), unresumed_[index].begin(), unresumed_[index].end());
    device_.list_in_flight(index, heads_);
    assert(static_cast<uint16_t>(position.next_avail - position.next_used) == heads_.size());
  }
  to.u16(position.next_avail);
  to.u16(position.next_used);
  to.u16(static_cast<uint16_t>(heads_.size()));
  for (uint16_t head : heads_) to.u16(head);
}

Result<void> PciTransport::restore(base::Decoder& from) {
  auto type = static_cast<uint16_t>(device_.type());
  if (uint16_t saved = from.u16(); saved != type) {
    return base::fail(fmt::format("virtio device type {}, this device has {}", saved, type));
  }
  uint8_t state = from.u8();
  if (state > static_cast<uint8_t>(State::kResetting)) {
    return base::fail(fmt::format("device state {} is not known", state));
  }
  state_ = static_cast<State>(state);
  map_at_restart_ = from.boolean();
  isr_ = from.u8();
  if (isr_ & ~(kIsrQueue | kIsrConfig)) return base::fail(fmt::format("ISR status {:#x}", isr_));
  TRY(config_.restore(from));
  TRY(registers_.restore(from));
  TRY(msix_.restore(from, config_));
  bool started = registers_.status() & kStatusDriverOk;
  bool broken = registers_.status() & kStatusNeedsReset;
  bool agrees = state_ == State::kResetting
                    ? started
                    : started == (state_ != State::kIdle) && broken == (state_ == State::kStopped);
  if (!agrees) {
    return base::fail(
        fmt::format("device status {:#x} in device state {}", registers_.status(), state));
  }
  for (uint16_t i = 0, count = static_cast<uint16_t>(queues_.size()); i < count; ++i) {
    if (started && registers_.queues()[i].enabled) TRY(restore_queue(i, from));
  }
  TRY(device_.restore(from));
  bool stays = mapped_ && map_at_restart_ && *mapped_ == config_.bar0();
  if (!stays) unmap();
  return {};
}

Result<void> PciTransport::restore_queue(uint16_t index, base::Decoder& from) {
  uint16_t size = registers_.queues()[index].size;
  positions_[index].next_avail = from.u16();
  positions_[index].next_used = from.u16();
  uint16_t in_flight =
      static_cast<uint16_t>(positions_[index].next_avail - positions_[index].next_used);
  if (in_flight > size) {
    return base::fail(
        fmt::format("queue {} of {} entries has {} requests in flight", index, size, in_flight));
  }
  uint16_t count = from.u16();
  if (count != (state_ == State::kActive ? in_flight : 0)) {
    return base::fail(
        fmt::format("queue {} has {} requests in flight and lists {}", index, in_flight, count));
  }
  std::vector<bool> seen(size);
  for (uint16_t i = 0; i < count; ++i) {
    uint16_t head = from.u16();
    if (head >= size || seen[head]) {
      return base::fail(fmt::format("queue {} of {} entries has descriptor {} in flight{}", index,
                                    size, head, head < size ? " twice" : ""));
    }
    seen[head] = true;
    unresumed_[index].push_back(head);
  }
  return {};
}

Result<void> PciTransport::restart() {
  if (map_at_restart_ && !mapped_) {
    if (!config_.memory_enabled()) return base::fail("BAR 0 is mapped but not enabled");
    map(config_.bar0());
    if (!mapped_) {
      return base::fail(fmt::format("BAR 0 cannot be mapped at {:#x}", config_.bar0()));
    }
  }
  if (state_ == State::kIdle) return {};
  State saved = std::exchange(state_, State::kActive);
  auto activated = try_activate();
  switch (saved) {
    case State::kActive:
      return activated;
    case State::kStopped:
      // Whether it starts or not: from here on all that helps is the driver's reset.
      state_ = State::kStopped;
      stop_watches();
      return {};
    case State::kResetting:
      // What the reset waited for is not in flight here.
      begin_reset();
      if (state_ == State::kIdle) return {};
      return base::fail("its reset does not end");
    case State::kIdle:
      break;
  }
  return {};
}

void PciTransport::wake() {
  if (state_ == State::kIdle) return;
  if (state_ == State::kActive) {
    for (size_t i = 0; i < queues_.size(); ++i) {
      if (!queues_[i]) continue;
      isr_ |= kIsrQueue;
      msix_.signal(registers_.queues()[i].vector);
      kicks_[i].signal();
    }
  }
  isr_ |= kIsrConfig;
  msix_.signal(registers_.config_vector());
}

}  // namespace virtio
