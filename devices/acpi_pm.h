// The fixed ACPI hardware (ACPI 6.5, section 4.8): PM1 event and control registers with the power
// button, the PM timer, the FADT's reset register, and general-purpose events. One block of ports
// from layout::kPortPm1Event on. vCPU threads access it; press_power_button() comes from any
// thread.
//
//   0x0  PM1 status   write one to clear       0x4  PM1 control  sleep type and enable
//   0x2  PM1 enable                            0x8  PM timer     3.579545 MHz, 32 bits
//   0xE  GPE0 status  write one to clear       0xC  reset
//   0xF  GPE0 enable
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>

#include "vmm/base/codec.h"
#include "vmm/base/result.h"
#include "vmm/bus.h"
#include "vmm/interrupts.h"

namespace devices {

class AcpiPm : public vmm::BusDevice {
 public:
  static constexpr uint64_t kPorts = 0x10;

  struct Callbacks {  // called on the vCPU's thread, with nothing locked
    std::function<void()> on_power_off;
    std::function<void()> on_reset;
  };

  struct State {
    uint16_t status = 0;
    uint16_t enable = 0;
    uint8_t sleep_type = 0;
    uint32_t timer = 0;  // where the timer goes on counting
    uint8_t event_status = 0;
    uint8_t event_enable = 0;
    bool operator==(const State&) const = default;
  };

  using Clock = std::function<uint64_t()>;  // monotonic nanoseconds

  // `sci` is level-triggered and active high, as the MADT says. `clock` is for tests.
  AcpiPm(std::unique_ptr<vmm::InterruptLine> sci, Callbacks callbacks, Clock clock = monotonic_ns);

  void read(uint64_t offset, std::span<uint8_t> data) override;
  void write(uint64_t offset, std::span<const uint8_t> data) override;

  // The guest sees a press of its power button and is expected to shut itself down.
  void press_power_button();
  // Raises general-purpose event `number`, 0 to 7.
  void raise_event(unsigned number);

  State save() const;
  base::Result<void> restore(const State& state);
  // The same as bytes.
  void save(base::Encoder& to) const;
  base::Result<void> restore(base::Decoder& from);

 private:
  static uint64_t monotonic_ns();
  enum class Action { kNone, kPowerOff, kReset };
  Action write_byte(uint64_t offset, uint8_t value);
  uint8_t read_byte(uint64_t offset, uint32_t timer) const;
  uint32_t timer() const;
  bool wants_sci() const;
  void update_sci();

  std::unique_ptr<vmm::InterruptLine> sci_;
  Callbacks callbacks_;
  Clock clock_;
  mutable std::mutex mutex_;  // guards all below
  State state_;               // its timer is the count at timer_start_ns_
  uint64_t timer_start_ns_;
  bool sci_high_ = false;
};

}  // namespace devices
