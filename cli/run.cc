#include "cli/run.h"

#include <fmt/format.h>
#include <unistd.h>

#include "cli/control_server.h"
#include "cli/exit_status.h"
#include "cli/foreground.h"
#include "cli/guest_console.h"
#include "cli/running_machine.h"
#include "cli/runtime_dir.h"
#include "cli/vm_registry.h"
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

void report(const StopReason& reason) {
  switch (reason.kind) {
    case StopReason::Kind::kReset:
      base::log_info("the guest reset{}{}", reason.detail.empty() ? "" : ": ", reason.detail);
      break;
    case StopReason::Kind::kPanic:
      base::log_info("the guest panicked");
      break;
    case StopReason::Kind::kError:
      base::log_error("{}", reason.detail);
      break;
    default:
      break;
  }
}

// A machine with what serves it. Each part uses those above it, so they are destroyed from below:
// first nobody asks any more, then no vCPU calls a device, then the console lets go of its device.
struct Parts {
  std::unique_ptr<vmm::Machine> machine;
  std::unique_ptr<devices::Platform> platform;
  std::unique_ptr<GuestConsole> console;
  std::unique_ptr<RunningMachine> target;
  std::unique_ptr<ControlServer> server;

  ~Parts() {
    server.reset();
    if (machine) machine->halt_threads();
  }
};

Result<void> assemble(Parts& parts, const RunOptions& options, Foreground& foreground) {
  TRY_ASSIGN(parts.console,
             GuestConsole::create(options.console, [&foreground] { foreground.input_room(); }));
  TRY_ASSIGN(parts.machine,
             vmm::Machine::create({.memory_bytes = options.memory_bytes, .cpus = options.cpus}));
  devices::PlatformConfig config = platform_config(options);
  config.console = parts.console->take_descriptors();
  TRY_ASSIGN(parts.platform, devices::Platform::create(*parts.machine, std::move(config)));
  TRY(parts.console->connect(*parts.platform));
  TRY(load_guest(*parts.machine, options));
  parts.target = std::make_unique<RunningMachine>(options, *parts.machine, *parts.platform);
  TRY_ASSIGN(parts.server, ControlServer::start(options.api_socket, *parts.target));
  return {};
}

Result<StopReason> run_to_the_end(const RunOptions& options, Foreground& foreground) {
  Parts parts;
  TRY(assemble(parts, options, foreground));
  parts.machine->run();

  auto stop = [&] { parts.machine->stop({StopReason::Kind::kRequested, 0, ""}); };
  Foreground::Machine relay{.name = options.name,
                            .ended = parts.machine->stopped().fd(),
                            .power_button = [&] { parts.platform->press_power_button(); },
                            .stop = stop,
                            .push_input = {}};
  if (parts.console->takes_input()) {
    relay.push_input = [&](std::span<const uint8_t> bytes) { return parts.console->push(bytes); };
  }
  if (auto ran = foreground.run(relay, STDIN_FILENO); !ran) {
    base::log_error("{}", ran.error().text());
    stop();
  }
  return *parts.machine->stop_reason();
}

}  // namespace

Result<int> run_machine(const RunOptions& asked) {
  // First of all: it blocks the signals it waits for, and threads inherit the mask.
  TRY_ASSIGN(auto foreground, Foreground::create());
  TRY_ASSIGN(std::string directory, prepare_runtime_dir());
  TRY_ASSIGN(VmName name, VmName::claim(directory, asked.name, asked.api_socket));
  RunOptions options = asked;
  options.name = name.name();
  options.api_socket = name.socket();
  TRY_ASSIGN(StopReason reason, run_to_the_end(options, *foreground));
  report(reason);
  return exit_status_of(reason);
}

}  // namespace cli
