// The MC146818 clock and its CMOS memory, at ports 0x70 (index) and 0x71 (data). The time is the
// host's, in UTC, and cannot be set: what a guest writes to the time registers is ignored, so that
// it finds the right time whenever it looks. There are no alarms and no interrupts. The other bytes
// hold what is written to them. vCPU threads access it.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <mutex>

#include "vmm/base/codec.h"
#include "vmm/base/result.h"
#include "vmm/bus.h"

namespace devices {

class Rtc : public vmm::BusDevice {
 public:
  static constexpr uint64_t kPorts = 2;
  static constexpr size_t kCmosSize = 128;

  struct State {
    uint8_t index = 0;
    std::array<uint8_t, kCmosSize> cmos{};  // the bytes of the clock itself are not used
    bool operator==(const State&) const = default;
  };

  using Clock = std::function<uint64_t()>;  // nanoseconds since 1970, UTC

  explicit Rtc(Clock clock = host_time_ns);

  void read(uint64_t offset, std::span<uint8_t> data) override;
  void write(uint64_t offset, std::span<const uint8_t> data) override;

  State save() const;
  base::Result<void> restore(const State& state);
  // The same as bytes.
  void save(base::Encoder& to) const;
  base::Result<void> restore(base::Decoder& from);

 private:
  static uint64_t host_time_ns();
  uint8_t read_cmos() const;
  void write_cmos(uint8_t value);
  uint8_t time_register(uint8_t index, uint64_t now_ns) const;
  uint8_t encode(unsigned value) const;

  Clock clock_;
  mutable std::mutex mutex_;  // guards state_
  State state_;
};

}  // namespace devices
