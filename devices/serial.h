// The 16550A serial port at 0x3F8, with FIFOs, loopback mode and an interrupt line. vCPU threads
// access the registers; the host's side (SerialOutput, the terminal) takes output and pushes input
// from threads of its own. All functions may be called from any thread.
//
// Transmission takes no time: THR is empty again at once. When the host does not keep up, the
// queue grows to kOutputHighWater and the line status then says "not empty" until it is taken, so
// that a guest which waits loses nothing. Drivers give up waiting after some milliseconds a
// character (Linux: 10 ms); there is room for these up to kOutputLimit, past that they are lost.
//
// Input beyond the 16-byte FIFO waits on the host's side until the guest reads, and all of it
// until the guest raises RTS: a FIFO that is cleared when the port is opened loses no keystroke.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "vmm/base/codec.h"
#include "vmm/base/result.h"
#include "vmm/bus.h"
#include "vmm/interrupts.h"

namespace devices {

class Serial : public vmm::BusDevice {
 public:
  static constexpr uint64_t kPorts = 8;
  static constexpr size_t kFifoSize = 16;
  static constexpr size_t kOutputHighWater = 16 * 1024;
  static constexpr size_t kOutputLimit = 64 * 1024;
  static constexpr size_t kInputLimit = 4096;

  // What the guest can see. Output and input queued on the host's side are the host's.
  struct State {
    uint8_t interrupt_enable = 0;
    uint8_t fifo_control = 0;  // without the bits that clear themselves
    uint8_t line_control = 0;
    uint8_t modem_control = 0;
    uint8_t line_errors = 0;   // the part of LSR that a read clears
    uint8_t modem_deltas = 0;  // the part of MSR that a read clears
    uint8_t scratch = 0;
    uint8_t thr_empty_pending = 0;  // 1: the "THR empty" interrupt was not yet taken
    uint16_t divisor = 12;          // 9600 baud; kept for the guest to read, nothing depends on it
    uint8_t rx_count = 0;
    std::array<uint8_t, kFifoSize> rx{};
    bool operator==(const State&) const = default;
  };

  explicit Serial(std::unique_ptr<vmm::InterruptLine> line) : line_(std::move(line)) {}

  void read(uint64_t offset, std::span<uint8_t> data) override;
  void write(uint64_t offset, std::span<const uint8_t> data) override;

  // Called when the first byte enters an empty output queue, on the vCPU's thread and with the
  // port locked: it may only wake somebody. Without a listener output is thrown away.
  void set_output_listener(std::function<void()> listener);
  // Replaces `into` by the output so far.
  void take_output(std::vector<uint8_t>& into);

  // Queues as many bytes as there is room for and returns how many. Where that is not all,
  // the listener is called (as above) once half the room is free again.
  size_t push_input(std::span<const uint8_t> bytes);
  void set_input_listener(std::function<void()> listener);

  State save() const;
  base::Result<void> restore(const State& state);
  // The same as bytes.
  void save(base::Encoder& to) const;
  base::Result<void> restore(base::Decoder& from);

 private:
  uint8_t read_register(uint64_t offset);
  void write_register(uint64_t offset, uint8_t value);
  void transmit(uint8_t value);
  void receive(uint8_t value);
  uint8_t take_received();
  void write_modem_control(uint8_t value);
  void refill();
  void update_line();
  uint8_t interrupt_cause() const;
  uint8_t modem_inputs() const;
  bool thr_empty() const { return output_.size() < kOutputHighWater; }
  bool loopback() const;
  size_t rx_capacity() const;

  std::unique_ptr<vmm::InterruptLine> line_;
  mutable std::mutex mutex_;  // guards all below
  State state_;
  bool line_high_ = false;
  std::vector<uint8_t> output_;
  std::deque<uint8_t> input_;
  bool input_refused_ = false;
  std::function<void()> output_listener_;
  std::function<void()> input_listener_;
};

}  // namespace devices
