#include "cli/run.h"

#include <fmt/format.h>
#include <unistd.h>

#include "cli/exit_status.h"
#include "cli/foreground.h"
#include "cli/guest_console.h"
#include "devices/platform.h"
#include "vmm/acpi/tables.h"
#include "vmm/base/log.h"
#include "vmm/boot/kernel.h"
#include "vmm/machine.h"

namespace cli {

using base::Result;
using vmm::StopReason;

namespace {

devices::NetConfig net_config(const NetOption& option, std::string_view machine, size_t index) {
  devices::NetConfig net;
  net.tap = option.tap;
  net.user.forwards = option.host_forwards;
  net.mac = option.mac.value_or(virtio::derive_mac(fmt::format("{}/{}", machine, index)));
  return net;
}

devices::PlatformConfig platform_config(const RunOptions& options) {
  devices::PlatformConfig config;
  for (size_t i = 0; i < options.disks.size(); ++i) {
    const DiskOption& disk = options.disks[i];
    config.disks.push_back({.id = fmt::format("disk{}", i),
                            .path = disk.path,
                            .read_only = disk.read_only,
                            .serial = disk.serial});
  }
  for (size_t i = 0; i < options.nets.size(); ++i) {
    config.nets.push_back(net_config(options.nets[i], options.name, i));
  }
  config.rng = options.rng;
  config.balloon = options.balloon;
  if (options.vsock) config.vsock = {options.vsock->cid, options.vsock->path};
  return config;
}

Result<void> load_guest(vmm::Machine& machine, const RunOptions& options) {
  TRY_ASSIGN(vmm::Gpa rsdp, vmm::acpi::write_tables(machine.memory(), {.cpus = options.cpus}));
  vmm::boot::KernelSpec spec;
  spec.kernel_path = options.kernel;
  if (!options.initrd.empty()) spec.initrd_path = options.initrd;
  spec.command_line = guest_command_line(options);
  spec.boot_path = options.boot;
  TRY_ASSIGN(vmm::boot::Entry entry, vmm::boot::load_kernel(machine.memory(), spec, rsdp));
  return machine.boot(entry);
}

int exit_status(const StopReason& reason) {
  switch (reason.kind) {
    case StopReason::Kind::kPowerOff:
      return kSuccess;
    case StopReason::Kind::kExit:
      return reason.status;
    case StopReason::Kind::kReset:
      base::log_info("the guest reset{}{}", reason.detail.empty() ? "" : ": ", reason.detail);
      return kGuestReset;
    case StopReason::Kind::kPanic:
      base::log_info("the guest panicked");
      return kGuestPanic;
    case StopReason::Kind::kRequested:
      return kStopped;
    case StopReason::Kind::kError:
      base::log_error("{}", reason.detail);
      return kVmmError;
  }
  return kVmmError;
}

}  // namespace

Result<int> run_machine(const RunOptions& options) {
  // First of all: it blocks the signals it waits for, and threads inherit the mask.
  TRY_ASSIGN(auto foreground, Foreground::create());
  TRY_ASSIGN(auto console, GuestConsole::create(options.console,
                                                [raw = foreground.get()] { raw->input_room(); }));
  TRY_ASSIGN(auto machine,
             vmm::Machine::create({.memory_bytes = options.memory_bytes, .cpus = options.cpus}));
  devices::PlatformConfig config = platform_config(options);
  config.console = console->take_descriptors();
  TRY_ASSIGN(auto platform, devices::Platform::create(*machine, std::move(config)));
  TRY(console->connect(*platform));
  TRY(load_guest(*machine, options));
  machine->run();

  auto stop = [&] { machine->stop({StopReason::Kind::kRequested, 0, ""}); };
  Foreground::Machine relay{.name = options.name,
                            .ended = machine->stopped().fd(),
                            .power_button = [&] { platform->press_power_button(); },
                            .stop = stop,
                            .push_input = {}};
  if (console->takes_input()) {
    relay.push_input = [&](std::span<const uint8_t> bytes) { return console->push(bytes); };
  }
  if (auto ran = foreground->run(relay, STDIN_FILENO); !ran) {
    base::log_error("{}", ran.error().text());
    stop();
  }
  // vCPUs first, then the console's threads, then the devices they use.
  machine->halt_threads();
  console.reset();
  platform.reset();
  return exit_status(*machine->stop_reason());
}

}  // namespace cli
