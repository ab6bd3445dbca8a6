#include "devices/acpi_pm.h"

#include <time.h>

#include "vmm/layout.h"

namespace devices {
namespace {

constexpr uint64_t kStatus = 0x0;
constexpr uint64_t kEnable = 0x2;
constexpr uint64_t kControl = 0x4;
constexpr uint64_t kTimer = 0x8;
constexpr uint64_t kReset = 0xC;
constexpr uint64_t kEventStatus = 0xE;
constexpr uint64_t kEventEnable = 0xF;
static_assert(vmm::layout::kPortGpe0 == vmm::layout::kPortPm1Event + kEventStatus);

// ACPI 6.5, tables 4.13 and 4.14. The timer's carry, the RTC and the global lock never set theirs.
constexpr uint16_t kPowerButton = 1 << 8;
constexpr uint16_t kStatusBits = kPowerButton;
constexpr uint16_t kEnableBits = 1 << 0 | 1 << 5 | kPowerButton | 1 << 10;

// The control register's high byte, table 4.15; of the low one only SCI_EN exists, always set:
// there is no SMI command port by which ACPI mode could be left.
constexpr uint8_t kSciEnabled = 1 << 0;
constexpr unsigned kSleepTypeShift = 2;
constexpr uint8_t kSleepTypeMask = 7;
constexpr uint8_t kSleepEnable = 1 << 5;

// Those that there are.
constexpr uint8_t kEvents = 1 << vmm::layout::kGpeGeneration;

constexpr uint64_t kTimerHz = 3'579'545;

}  // namespace

AcpiPm::AcpiPm(std::unique_ptr<vmm::InterruptLine> sci, Callbacks callbacks, Clock clock)
    : sci_(std::move(sci)),
      callbacks_(std::move(callbacks)),
      clock_(std::move(clock)),
      timer_start_ns_(clock_()) {}

uint64_t AcpiPm::monotonic_ns() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

uint32_t AcpiPm::timer() const {
  auto elapsed_ns = static_cast<unsigned __int128>(clock_() - timer_start_ns_);
  return state_.timer + static_cast<uint32_t>(elapsed_ns * kTimerHz / 1'000'000'000);
}

void AcpiPm::read(uint64_t offset, std::span<uint8_t> data) {
  std::scoped_lock lock(mutex_);
  uint32_t now = timer();  // once: its bytes belong together
  for (uint8_t& byte : data) byte = read_byte(offset++, now);
}

uint8_t AcpiPm::read_byte(uint64_t offset, uint32_t timer) const {
  switch (offset) {
    case kStatus:
      return static_cast<uint8_t>(state_.status);
    case kStatus + 1:
      return static_cast<uint8_t>(state_.status >> 8);
    case kEnable:
      return static_cast<uint8_t>(state_.enable);
    case kEnable + 1:
      return static_cast<uint8_t>(state_.enable >> 8);
    case kControl:
      return kSciEnabled;
    case kControl + 1:
      return static_cast<uint8_t>(state_.sleep_type << kSleepTypeShift);
    case kTimer:
    case kTimer + 1:
    case kTimer + 2:
    case kTimer + 3:
      return static_cast<uint8_t>(timer >> 8 * (offset - kTimer));
    case kEventStatus:
      return state_.event_status;
    case kEventEnable:
      return state_.event_enable;
  }
  return 0;
}

void AcpiPm::write(uint64_t offset, std::span<const uint8_t> data) {
  auto action = Action::kNone;
  {
    std::scoped_lock lock(mutex_);
    for (uint8_t byte : data) {
      if (auto asked = write_byte(offset++, byte); asked != Action::kNone) action = asked;
    }
    update_sci();
  }
  if (action == Action::kPowerOff) callbacks_.on_power_off();
  if (action == Action::kReset) callbacks_.on_reset();
}

AcpiPm::Action AcpiPm::write_byte(uint64_t offset, uint8_t value) {
  switch (offset) {
    case kStatus:
      state_.status &= static_cast<uint16_t>(~value);
      break;
    case kStatus + 1:
      state_.status &= static_cast<uint16_t>(~(value << 8));
      break;
    case kEnable:
      state_.enable = static_cast<uint16_t>(((state_.enable & 0xFF00) | value) & kEnableBits);
      break;
    case kEnable + 1:
      state_.enable = static_cast<uint16_t>(((state_.enable & 0xFF) | value << 8) & kEnableBits);
      break;
    case kControl + 1:
      state_.sleep_type = value >> kSleepTypeShift & kSleepTypeMask;
      if (value & kSleepEnable && state_.sleep_type == vmm::layout::kSleepTypeOff)
        return Action::kPowerOff;
      break;
    case kReset:
      if (value == vmm::layout::kResetValue) return Action::kReset;
      break;
    case kEventStatus:
      state_.event_status &= static_cast<uint8_t>(~value);
      break;
    case kEventEnable:
      state_.event_enable = value & kEvents;
      break;
  }
  return Action::kNone;
}

bool AcpiPm::wants_sci() const {
  return (state_.status & state_.enable) != 0 || (state_.event_status & state_.event_enable) != 0;
}

void AcpiPm::update_sci() {
  bool high = wants_sci();
  if (high == sci_high_) return;
  sci_high_ = high;
  sci_->set_level(high);
}

void AcpiPm::press_power_button() {
  std::scoped_lock lock(mutex_);
  state_.status |= kPowerButton;
  update_sci();
}

void AcpiPm::raise_event(unsigned number) {
  std::scoped_lock lock(mutex_);
  state_.event_status |= static_cast<uint8_t>(1 << number & kEvents);
  update_sci();
}

AcpiPm::State AcpiPm::save() const {
  std::scoped_lock lock(mutex_);
  State state = state_;
  state.timer = timer();
  return state;
}

base::Result<void> AcpiPm::restore(const State& state) {
  if (state.status & ~kStatusBits || state.enable & ~kEnableBits ||
      state.sleep_type > kSleepTypeMask || (state.event_status | state.event_enable) & ~kEvents) {
    return base::fail("ACPI PM: saved state has a value that no register can hold");
  }
  std::scoped_lock lock(mutex_);
  state_ = state;
  timer_start_ns_ = clock_();
  sci_high_ = wants_sci();
  sci_->set_level(sci_high_);
  return {};
}

void AcpiPm::save(base::Encoder& to) const {
  State state = save();
  to.u16(state.status);
  to.u16(state.enable);
  to.u8(state.sleep_type);
  to.u32(state.timer);
  to.u8(state.event_status);
  to.u8(state.event_enable);
}

base::Result<void> AcpiPm::restore(base::Decoder& from) {
  State state;
  state.status = from.u16();
  state.enable = from.u16();
  state.sleep_type = from.u8();
  state.timer = from.u32();
  state.event_status = from.u8();
  state.event_enable = from.u8();
  return restore(state);
}

}  // namespace devices
