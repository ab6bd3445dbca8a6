// Register and bit names are those of the PC16550D data sheet, section 8.
#include "devices/serial.h"

#include <algorithm>

namespace devices {
namespace {

enum Register : uint64_t {
  kData = 0,             // RBR, THR; divisor low with DLAB
  kInterruptEnable = 1,  // divisor high with DLAB
  kInterruptId = 2,      // reads IIR, writes FCR
  kLineControl = 3,
  kModemControl = 4,
  kLineStatus = 5,
  kModemStatus = 6,
  kScratch = 7,
};

constexpr uint8_t kIerReceived = 1 << 0;
constexpr uint8_t kIerThrEmpty = 1 << 1;
constexpr uint8_t kIerLineStatus = 1 << 2;
constexpr uint8_t kIerModemStatus = 1 << 3;
constexpr uint8_t kIerMask = 0x0F;

constexpr uint8_t kCauseModemStatus = 0x00;
constexpr uint8_t kCauseNone = 0x01;
constexpr uint8_t kCauseThrEmpty = 0x02;
constexpr uint8_t kCauseReceived = 0x04;
constexpr uint8_t kCauseLineStatus = 0x06;
constexpr uint8_t kCauseTimeout = 0x0C;
constexpr uint8_t kIirFifos = 0xC0;

constexpr uint8_t kFcrEnable = 1 << 0;
constexpr uint8_t kFcrClearRx = 1 << 1;
constexpr uint8_t kFcrKept = 0xC9;  // enable, DMA mode, trigger level

constexpr uint8_t kLcrDivisorLatch = 1 << 7;

constexpr uint8_t kMcrDtr = 1 << 0;
constexpr uint8_t kMcrRts = 1 << 1;
constexpr uint8_t kMcrOut1 = 1 << 2;
constexpr uint8_t kMcrOut2 = 1 << 3;  // on a PC: lets the interrupt out to the IOAPIC
constexpr uint8_t kMcrLoopback = 1 << 4;
constexpr uint8_t kMcrMask = 0x1F;

constexpr uint8_t kLsrDataReady = 1 << 0;
constexpr uint8_t kLsrOverrun = 1 << 1;
constexpr uint8_t kLsrThrEmpty = 1 << 5;
constexpr uint8_t kLsrTransmitterEmpty = 1 << 6;

constexpr uint8_t kMsrCts = 1 << 4;
constexpr uint8_t kMsrDsr = 1 << 5;
constexpr uint8_t kMsrRi = 1 << 6;
constexpr uint8_t kMsrDcd = 1 << 7;
constexpr uint8_t kMsrDeltas = 0x0F;

constexpr std::array<uint8_t, 4> kRxTriggers = {1, 4, 8, 14};

}  // namespace

void Serial::read(uint64_t offset, std::span<uint8_t> data) {
  std::scoped_lock lock(mutex_);
  for (uint8_t& byte : data) byte = read_register(offset++);
  update_line();
}

void Serial::write(uint64_t offset, std::span<const uint8_t> data) {
  std::scoped_lock lock(mutex_);
  for (uint8_t byte : data) write_register(offset++, byte);
  update_line();
}

uint8_t Serial::read_register(uint64_t offset) {
  bool divisor_latch = state_.line_control & kLcrDivisorLatch;
  switch (offset) {
    case kData:
      return divisor_latch ? static_cast<uint8_t>(state_.divisor) : take_received();
    case kInterruptEnable:
      return divisor_latch ? static_cast<uint8_t>(state_.divisor >> 8) : state_.interrupt_enable;
    case kInterruptId: {
      uint8_t cause = interrupt_cause();
      if (cause == kCauseThrEmpty) state_.thr_empty_pending = 0;
      return cause | ((state_.fifo_control & kFcrEnable) ? kIirFifos : 0);
    }
    case kLineControl:
      return state_.line_control;
    case kModemControl:
      return state_.modem_control;
    case kLineStatus: {
      uint8_t status = std::exchange(state_.line_errors, 0);
      if (state_.rx_count > 0) status |= kLsrDataReady;
      if (thr_empty()) status |= kLsrThrEmpty | kLsrTransmitterEmpty;
      return status;
    }
    case kModemStatus:
      return modem_inputs() | std::exchange(state_.modem_deltas, 0);
    case kScratch:
      return state_.scratch;
  }
  return 0xFF;
}

void Serial::write_register(uint64_t offset, uint8_t value) {
  bool divisor_latch = state_.line_control & kLcrDivisorLatch;
  switch (offset) {
    case kData:
      if (divisor_latch) {
        state_.divisor = static_cast<uint16_t>((state_.divisor & 0xFF00) | value);
      } else {
        transmit(value);
      }
      break;
    case kInterruptEnable:
      if (divisor_latch) {
        state_.divisor = static_cast<uint16_t>((state_.divisor & 0x00FF) | value << 8);
        break;
      }
      // Enabling the interrupt while THR is empty raises it; Linux tests for exactly this.
      if (~state_.interrupt_enable & value & kIerThrEmpty && thr_empty()) {
        state_.thr_empty_pending = 1;
      }
      state_.interrupt_enable = value & kIerMask;
      break;
    case kInterruptId: {
      uint8_t kept = (value & kFcrEnable) ? value & kFcrKept : 0;
      bool switched = (kept ^ state_.fifo_control) & kFcrEnable;
      state_.fifo_control = kept;
      if (switched || value & kFcrClearRx) {
        state_.rx_count = 0;
        refill();
      }
      break;
    }
    case kLineControl:
      state_.line_control = value;
      break;
    case kModemControl:
      write_modem_control(value & kMcrMask);
      break;
    case kScratch:
      state_.scratch = value;
      break;
    default:  // the status registers are read-only
      break;
  }
}

void Serial::transmit(uint8_t value) {
  if (loopback()) {
    receive(value);
  } else if (output_listener_ && output_.size() < kOutputLimit) {
    output_.push_back(value);
    if (output_.size() == 1) output_listener_();
  }
  state_.thr_empty_pending = thr_empty();
}

void Serial::receive(uint8_t value) {
  if (state_.rx_count >= rx_capacity()) {
    state_.line_errors |= kLsrOverrun;
    if (state_.fifo_control & kFcrEnable) return;  // a full FIFO drops the new one, RBR the old
    state_.rx_count = 0;
  }
  state_.rx[state_.rx_count++] = value;
}

uint8_t Serial::take_received() {
  if (state_.rx_count == 0) return 0;
  uint8_t value = state_.rx[0];
  std::copy(state_.rx.begin() + 1, state_.rx.begin() + state_.rx_count, state_.rx.begin());
  state_.rx_count--;
  refill();
  return value;
}

void Serial::write_modem_control(uint8_t value) {
  uint8_t before = modem_inputs();
  state_.modem_control = value;
  uint8_t after = modem_inputs();
  uint8_t changed = (before ^ after) & (kMsrCts | kMsrDsr | kMsrDcd);
  changed |= before & ~after & kMsrRi;  // the ring indicator counts when it ends
  state_.modem_deltas |= changed >> 4;
  refill();
}

// Moves host input into the FIFO while the guest wants it.
void Serial::refill() {
  if (loopback() || !(state_.modem_control & kMcrRts)) return;
  while (!input_.empty() && state_.rx_count < rx_capacity()) {
    receive(input_.front());
    input_.pop_front();
  }
  if (input_refused_ && input_.size() <= kInputLimit / 2) {
    input_refused_ = false;
    if (input_listener_) input_listener_();
  }
}

void Serial::update_line() {
  bool high = interrupt_cause() != kCauseNone && state_.modem_control & kMcrOut2;
  if (high == line_high_) return;
  line_high_ = high;
  line_->set_level(high);
}

// By priority, table II of the data sheet. Data below the trigger level counts as timed out at
// once: no more may come for hours.
uint8_t Serial::interrupt_cause() const {
  uint8_t enabled = state_.interrupt_enable;
  if (enabled & kIerLineStatus && state_.line_errors != 0) return kCauseLineStatus;
  if (enabled & kIerReceived && state_.rx_count > 0) {
    bool fifos = state_.fifo_control & kFcrEnable;
    uint8_t trigger = fifos ? kRxTriggers[state_.fifo_control >> 6] : 1;
    return state_.rx_count >= trigger ? kCauseReceived : kCauseTimeout;
  }
  if (enabled & kIerThrEmpty && state_.thr_empty_pending) return kCauseThrEmpty;
  if (enabled & kIerModemStatus && state_.modem_deltas != 0) return kCauseModemStatus;
  return kCauseNone;
}

// The peer is always there and ready; in loopback mode the port sees its own outputs.
uint8_t Serial::modem_inputs() const {
  if (!loopback()) return kMsrCts | kMsrDsr | kMsrDcd;
  uint8_t control = state_.modem_control;
  return (control & kMcrRts ? kMsrCts : 0) | (control & kMcrDtr ? kMsrDsr : 0) |
         (control & kMcrOut1 ? kMsrRi : 0) | (control & kMcrOut2 ? kMsrDcd : 0);
}

bool Serial::loopback() const { return state_.modem_control & kMcrLoopback; }

size_t Serial::rx_capacity() const { return state_.fifo_control & kFcrEnable ? kFifoSize : 1; }

void Serial::set_output_listener(std::function<void()> listener) {
  std::scoped_lock lock(mutex_);
  output_listener_ = std::move(listener);
}

void Serial::take_output(std::vector<uint8_t>& into) {
  into.clear();
  std::scoped_lock lock(mutex_);
  bool was_full = !thr_empty();
  into.swap(output_);
  if (was_full) state_.thr_empty_pending = 1;
  update_line();
}

size_t Serial::push_input(std::span<const uint8_t> bytes) {
  std::scoped_lock lock(mutex_);
  size_t accepted = std::min(bytes.size(), kInputLimit - input_.size());
  input_.insert(input_.end(), bytes.begin(), bytes.begin() + accepted);
  input_refused_ = accepted < bytes.size();
  refill();
  update_line();
  return accepted;
}

void Serial::set_input_listener(std::function<void()> listener) {
  std::scoped_lock lock(mutex_);
  input_listener_ = std::move(listener);
}

Serial::State Serial::save() const {
  std::scoped_lock lock(mutex_);
  State state = state_;
  // Output that waits for the host does not travel: where the guest runs again THR is empty.
  if (!thr_empty()) state.thr_empty_pending = 1;
  return state;
}

base::Result<void> Serial::restore(const State& state) {
  size_t capacity = state.fifo_control & kFcrEnable ? kFifoSize : 1;
  if (state.rx_count > capacity || state.interrupt_enable & ~kIerMask ||
      state.fifo_control & ~kFcrKept || state.modem_control & ~kMcrMask ||
      state.line_errors & ~kLsrOverrun || state.modem_deltas & ~kMsrDeltas ||
      state.thr_empty_pending > 1) {
    return base::fail("serial port: saved state has a value that no register can hold");
  }
  std::scoped_lock lock(mutex_);
  state_ = state;
  refill();
  line_high_ = interrupt_cause() != kCauseNone && state_.modem_control & kMcrOut2;
  line_->set_level(line_high_);
  return {};
}

void Serial::save(base::Encoder& to) const {
  State state = save();
  to.u8(state.interrupt_enable);
  to.u8(state.fifo_control);
  to.u8(state.line_control);
  to.u8(state.modem_control);
  to.u8(state.line_errors);
  to.u8(state.modem_deltas);
  to.u8(state.scratch);
  to.u8(state.thr_empty_pending);
  to.u16(state.divisor);
  to.u8(state.rx_count);
  to.bytes(std::as_bytes(std::span(state.rx)));
}

base::Result<void> Serial::restore(base::Decoder& from) {
  State state;
  state.interrupt_enable = from.u8();
  state.fifo_control = from.u8();
  state.line_control = from.u8();
  state.modem_control = from.u8();
  state.line_errors = from.u8();
  state.modem_deltas = from.u8();
  state.scratch = from.u8();
  state.thr_empty_pending = from.u8();
  state.divisor = from.u16();
  state.rx_count = from.u8();
  state.rx = from.structure<decltype(state.rx)>();
  return restore(state);
}

}  // namespace devices
