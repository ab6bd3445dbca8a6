// The serial port under any sequence of register accesses, host input and output, and snapshots.
// Each step is an opcode byte: what to do, how wide, where.
#include "devices/serial.h"
#include "tests/fuzz/fuzz_input.h"
#include "tests/support/fake_line.h"

namespace {

// The interrupt that IIR would show must be the one on the line, and a copy must behave the same.
void check_copy(const devices::Serial& serial, const test::LineRecord& line) {
  test::LineRecord copy_line;
  devices::Serial copy(std::make_unique<test::FakeLine>(copy_line));
  auto state = serial.save();
  FUZZ_CHECK(copy.restore(state));
  FUZZ_CHECK(copy.save() == state);
  // A transmitter that waits for the host is the one thing that a copy has not: see save().
  FUZZ_CHECK(copy_line.high || !line.high);
  std::array<uint8_t, 1> cause;
  copy.read(2, cause);
  FUZZ_CHECK(copy_line.high ? !(cause[0] & 1) : true);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  fuzz::Input input(data, size);
  test::LineRecord line;
  devices::Serial serial(std::make_unique<test::FakeLine>(line));
  size_t queued = 0;
  std::vector<uint8_t> output;
  serial.set_output_listener([&] { queued++; });
  serial.set_input_listener([] {});

  while (!input.empty()) {
    uint8_t step = input.u8();
    size_t width = size_t{1} << (step >> 4 & 3);
    uint64_t offset = (step & 7) % (devices::Serial::kPorts - width + 1);
    std::array<uint8_t, 8> bytes{};
    switch (step >> 6) {
      case 0:
        serial.read(offset, std::span(bytes).first(width));
        break;
      case 1: {
        auto from = input.bytes(width);
        std::copy(from.begin(), from.end(), bytes.begin());
        serial.write(offset, std::span(bytes).first(width));
        break;
      }
      case 2:
        if (step & 8) {
          for (int i = 0; i < 3000; i++) serial.write(0, std::span(bytes).first(1));
        } else {
          auto typed = input.bytes(step & 0x37);
          FUZZ_CHECK(serial.push_input(typed) <= typed.size());
        }
        break;
      case 3:
        if (step & 8) {
          serial.take_output(output);
          FUZZ_CHECK(output.size() <= devices::Serial::kOutputLimit);
          FUZZ_CHECK(output.empty() || queued > 0);
          queued = 0;
        } else {
          check_copy(serial, line);
        }
        break;
    }
  }
  return 0;
}
