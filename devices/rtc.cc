// Register names are those of the MC146818 data sheet; the century is where PCs keep it and where
// the FADT says.
#include "devices/rtc.h"

#include <time.h>

namespace devices {
namespace {

enum Register : uint8_t {
  kSeconds = 0x00,
  kMinutes = 0x02,
  kHours = 0x04,
  kDayOfWeek = 0x06,
  kDayOfMonth = 0x07,
  kMonth = 0x08,
  kYear = 0x09,
  kA = 0x0A,
  kB = 0x0B,
  kC = 0x0C,
  kD = 0x0D,
  kCentury = 0x32,
};

constexpr uint8_t kAUpdateInProgress = 1 << 7;
constexpr uint8_t kADefault = 0x26;  // 32.768 kHz time base, 1024 Hz periodic rate
constexpr uint8_t kBSet = 1 << 7;
constexpr uint8_t kBBinary = 1 << 2;
constexpr uint8_t kB24Hours = 1 << 1;
constexpr uint8_t kBInterrupts = 7 << 4;  // periodic, alarm, update ended: not there, read zero
constexpr uint8_t kDValid = 1 << 7;
constexpr uint8_t kPm = 1 << 7;  // in the hours register, on a 12-hour clock

constexpr uint8_t kIndexMask = 0x7F;  // bit 7 masks NMI on a PC
constexpr uint64_t kSecondNs = 1'000'000'000;
constexpr uint64_t kUpdateNoticeNs = 244'000;  // UIP is set this long before the time changes

}  // namespace

Rtc::Rtc(Clock clock) : clock_(std::move(clock)) {
  state_.cmos[kA] = kADefault;
  state_.cmos[kB] = kB24Hours;
}

uint64_t Rtc::host_time_ns() {
  timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  return static_cast<uint64_t>(now.tv_sec) * kSecondNs + static_cast<uint64_t>(now.tv_nsec);
}

void Rtc::read(uint64_t offset, std::span<uint8_t> data) {
  std::scoped_lock lock(mutex_);
  for (uint8_t& byte : data) byte = offset++ == 0 ? 0xFF : read_cmos();  // the index: write-only
}

void Rtc::write(uint64_t offset, std::span<const uint8_t> data) {
  std::scoped_lock lock(mutex_);
  for (uint8_t byte : data) {
    if (offset++ == 0) {
      state_.index = byte & kIndexMask;
    } else {
      write_cmos(byte);
    }
  }
}

uint8_t Rtc::read_cmos() const {
  uint8_t stored = state_.cmos[state_.index];
  switch (state_.index) {
    case kSeconds:
    case kMinutes:
    case kHours:
    case kDayOfWeek:
    case kDayOfMonth:
    case kMonth:
    case kYear:
    case kCentury:
      return time_register(state_.index, clock_());
    case kA: {
      bool updating =
          clock_() % kSecondNs >= kSecondNs - kUpdateNoticeNs && !(state_.cmos[kB] & kBSet);
      return updating ? stored | kAUpdateInProgress : stored;
    }
    case kC:
      return 0;
    case kD:
      return kDValid;
  }
  return stored;
}

void Rtc::write_cmos(uint8_t value) {
  if (state_.index == kA) value &= static_cast<uint8_t>(~kAUpdateInProgress);
  if (state_.index == kB) value &= static_cast<uint8_t>(~kBInterrupts);
  state_.cmos[state_.index] = value;
}

uint8_t Rtc::time_register(uint8_t index, uint64_t now_ns) const {
  auto seconds = static_cast<time_t>(now_ns / kSecondNs);
  tm now{};
  gmtime_r(&seconds, &now);
  auto year = static_cast<unsigned>(now.tm_year + 1900);
  auto hour = static_cast<unsigned>(now.tm_hour);
  switch (index) {
    case kSeconds:
      return encode(static_cast<unsigned>(now.tm_sec));
    case kMinutes:
      return encode(static_cast<unsigned>(now.tm_min));
    case kHours:
      if (state_.cmos[kB] & kB24Hours) return encode(hour);
      return encode((hour + 11) % 12 + 1) | (hour >= 12 ? kPm : 0);
    case kDayOfWeek:
      return encode(static_cast<unsigned>(now.tm_wday + 1));
    case kDayOfMonth:
      return encode(static_cast<unsigned>(now.tm_mday));
    case kMonth:
      return encode(static_cast<unsigned>(now.tm_mon + 1));
    case kYear:
      return encode(year % 100);
    default:
      return encode(year / 100);
  }
}

uint8_t Rtc::encode(unsigned value) const {
  if (state_.cmos[kB] & kBBinary) return static_cast<uint8_t>(value);
  return static_cast<uint8_t>(value / 10 << 4 | value % 10);
}

Rtc::State Rtc::save() const {
  std::scoped_lock lock(mutex_);
  return state_;
}

base::Result<void> Rtc::restore(const State& state) {
  if (state.index & ~kIndexMask || state.cmos[kA] & kAUpdateInProgress ||
      state.cmos[kB] & kBInterrupts) {
    return base::fail("RTC: saved state has a value that no register can hold");
  }
  std::scoped_lock lock(mutex_);
  state_ = state;
  return {};
}

void Rtc::save(base::Encoder& to) const {
  State state = save();
  to.u8(state.index);
  to.bytes(std::as_bytes(std::span(state.cmos)));
}

base::Result<void> Rtc::restore(base::Decoder& from) {
  State state;
  state.index = from.u8();
  state.cmos = from.structure<decltype(state.cmos)>();
  return restore(state);
}

}  // namespace devices
