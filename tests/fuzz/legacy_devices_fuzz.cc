// The small platform devices under any sequence of accesses of any width: an opcode byte says
// which device, read or write, and how wide; an offset and the bytes to write follow.
#include "devices/acpi_pm.h"
#include "devices/exit_port.h"
#include "devices/i8042.h"
#include "devices/pvpanic.h"
#include "devices/rtc.h"
#include "tests/fuzz/fuzz_input.h"
#include "tests/support/fake_line.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  fuzz::Input input(data, size);
  uint64_t now_ns = 0;
  test::LineRecord sci;
  devices::AcpiPm pm(std::make_unique<test::FakeLine>(sci),
                     {.on_power_off = [] {}, .on_reset = [] {}}, [&] { return now_ns; });
  devices::Rtc rtc([&] { return now_ns; });
  devices::I8042 i8042([] {});
  devices::Pvpanic pvpanic([] {});
  devices::ExitPort exit_port([](int status) { FUZZ_CHECK(status >= 0 && status < 128); });
  struct Target {
    vmm::BusDevice& device;
    uint64_t ports;
  };
  const Target targets[] = {{pm, devices::AcpiPm::kPorts},
                            {rtc, devices::Rtc::kPorts},
                            {i8042, devices::I8042::kPorts},
                            {pvpanic, devices::Pvpanic::kPorts},
                            {exit_port, 1}};

  while (!input.empty()) {
    uint8_t step = input.u8();
    if ((step & 7) >= std::size(targets)) {
      if (step & 8) pm.raise_event(step >> 4 & 7);
      pm.press_power_button();
      now_ns += input.u64();
      continue;
    }
    const Target& target = targets[step & 7];
    // As on the bus: the access lies whole inside the device's range.
    size_t width = std::min<uint64_t>(1u << (step >> 3 & 3), std::bit_floor(target.ports));
    uint64_t offset = input.u8() % (target.ports - width + 1);
    std::array<uint8_t, 8> bytes{};
    if (step & 0x20) {
      auto from = input.bytes(width);
      std::copy(from.begin(), from.end(), bytes.begin());
      target.device.write(offset, std::span(bytes).first(width));
    } else {
      target.device.read(offset, std::span(bytes).first(width));
    }
    auto pm_state = pm.save();
    FUZZ_CHECK(sci.high == ((pm_state.status & pm_state.enable) != 0 ||
                            (pm_state.event_status & pm_state.event_enable) != 0));
    FUZZ_CHECK(pm.restore(pm_state) && pm.save() == pm_state);
    auto rtc_state = rtc.save();
    FUZZ_CHECK(rtc.restore(rtc_state) && rtc.save() == rtc_state);
  }
  return 0;
}
