#include "devices/platform.h"

#include "devices/virtio/rng.h"
#include "vmm/layout.h"

namespace devices {

using base::Result;
using vmm::StopReason;
namespace layout = vmm::layout;

Platform::Platform(vmm::Machine& machine)
    : machine_(machine),
      serial_(machine.interrupts().line(layout::kGsiSerial)),
      i8042_([this] { machine_.stop({StopReason::Kind::kReset, 0, "i8042"}); }),
      pm_(machine.interrupts().line(layout::kGsiSci),
          {.on_power_off = [this] { machine_.stop({StopReason::Kind::kPowerOff, 0, ""}); },
           .on_reset = [this] { machine_.stop({StopReason::Kind::kReset, 0, "ACPI"}); }}),
      pvpanic_([this] { machine_.stop({StopReason::Kind::kPanic, 0, ""}); }),
      exit_port_([this](int status) { machine_.stop({StopReason::Kind::kExit, status, ""}); }) {}

Platform::~Platform() {
  // No handler may run while transports and devices go.
  for (auto& loop : loops_) loop->stop();
}

Result<std::unique_ptr<Platform>> Platform::create(vmm::Machine& machine,
                                                   const PlatformConfig& config) {
  std::unique_ptr<Platform> platform(new Platform(machine));
  TRY(platform->attach_legacy());
  TRY_ASSIGN(auto loop, base::EventLoop::create("devices"));
  base::EventLoop& shared = *loop;
  platform->loops_.push_back(std::move(loop));
  if (config.rng) {
    TRY_ASSIGN(auto rng, virtio::Rng::create("rng"));
    TRY(platform->add_virtio(std::move(rng), shared));
  }
  return platform;
}

Result<void> Platform::attach_legacy() {
  vmm::Bus& pio = machine_.pio();
  TRY(pio.attach(layout::kPortI8042, I8042::kPorts, i8042_, "i8042"));
  TRY(pio.attach(layout::kPortRtc, Rtc::kPorts, rtc_, "RTC"));
  TRY(pio.attach(layout::kPortPvpanic, Pvpanic::kPorts, pvpanic_, "panic notifier"));
  TRY(pio.attach(layout::kPortExit, 1, exit_port_, "exit port"));
  TRY(pio.attach(layout::kPortSerial, Serial::kPorts, serial_, "serial port"));
  TRY(pio.attach(layout::kPortPm1Event, AcpiPm::kPorts, pm_, "ACPI power management"));
  return pci_.attach(pio, machine_.mmio());
}

Result<void> Platform::add_virtio(std::unique_ptr<virtio::Device> device, base::EventLoop& loop) {
  virtio::PciTransport::Environment environment{
      machine_.memory(), machine_.mmio(), machine_.interrupts(), machine_.doorbells(), pci_, loop};
  TRY_ASSIGN(auto transport, virtio::PciTransport::create(environment, *device));
  virtio_.push_back({std::move(device), std::move(transport)});
  return {};
}

}  // namespace devices
