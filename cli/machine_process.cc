#include "cli/machine_process.h"

#include <fmt/format.h>
#include <unistd.h>

#include "cli/duration.h"
#include "cli/exit_status.h"
#include "cli/saved_config.h"
#include "cli/size.h"
#include "vmm/base/log.h"

namespace cli {

using base::Result;
using vmm::StopReason;

namespace {

devices::NetConfig net_config(const RunOptions& options, size_t index) {
  const NetOption& option = options.nets[index];
  devices::NetConfig net;
  net.tap = option.tap;
  net.user.forwards = option.host_forwards;
  net.mac = mac_of(options, index);
  return net;
}

void log_scheduled(const Result<snapshot::Capture::Outcome>& outcome) {
  if (!outcome) return base::log_error("snapshot: {}", outcome.error().text());
  base::log_info("snapshot {}: {}, {} pages, {}, pause {}", outcome->id.text(),
                 outcome->full ? "full" : "incremental", outcome->pages.data,
                 format_size(outcome->bytes),
                 format_duration(std::chrono::nanoseconds(outcome->pause.total())));
}

}  // namespace

void DiskFullRelay::operator()(const std::string& message) {
  std::lock_guard lock(mutex_);
  message_ = message;
  // It only wakes a thread: who tells may hold a lock that a vCPU waits for on its way to a pause.
  if (to_ != nullptr) to_->disk_full(message);
}

void DiskFullRelay::attach(snapshot::SnapshotService* to) {
  std::lock_guard lock(mutex_);
  to_ = to;
  if (to_ != nullptr && message_) to_->disk_full(*message_);
}

bool DiskFullRelay::told() const {
  std::lock_guard lock(mutex_);
  return message_.has_value();
}

MachineProcess::~MachineProcess() {
  server.reset();
  disk_full.attach(nullptr);
  snapshots.reset();
  guest.reset();
  if (machine) machine->halt_threads();
  // Takes what the serial port, which is the platform's, has still to say.
  console.reset();
  // Device threads may wait for a page: they end before the pager does.
  platform.reset();
  // Not handed on: the guest never ran.
  if (branch) branch->discard();
}

Result<void> make_platform(MachineProcess& process, const RunOptions& options,
                           std::vector<virtio::Block::Options> disks) {
  devices::PlatformConfig config;
  config.disks = std::move(disks);
  for (size_t i = 0; i < options.nets.size(); ++i) {
    config.nets.push_back(net_config(options, i));
  }
  config.rng = options.rng;
  config.balloon = options.balloon;
  if (options.vsock) config.vsock = {options.vsock->cid, options.vsock->path};
  config.console = process.console->take_descriptors();
  TRY_ASSIGN(process.platform, devices::Platform::create(*process.machine, std::move(config)));
  process.console->connect(*process.platform);
  return {};
}

void let_guest_run(MachineProcess& process) {
  process.machine->run();
  if (process.disk_full.told()) return process.machine->pause();
  // Some hosts keep a process's threads on few processors: a vCPU that was woken on this one goes
  // first, not after all that is left to do here.
  std::this_thread::yield();
}

namespace {

Result<void> start_snapshots(MachineProcess& process, const RunOptions& options) {
  const SnapshotOptions& wanted = options.snapshots;
  vmm::Machine& machine = *process.machine;
  snapshot::SnapshotService::Config config{
      .vm_name = options.name,
      .config = saved_config(options),
      .store_path = wanted.store,
      .options = {.max_pause_ns = static_cast<uint64_t>(wanted.max_pause.count()),
                  .on_hot = wanted.on_hot,
                  .staging_bytes = wanted.staging_bytes},
      .every = std::chrono::duration_cast<std::chrono::milliseconds>(wanted.every),
      .keep = wanted.keep,
      .on_stopped = [&machine] { machine.stop({StopReason::Kind::kSnapshotted, 0, ""}); },
      .on_disk_full =
          [&machine, name = options.name](const std::string& message) {
            machine.pause();
            base::log_error("{}: the machine is paused; make room, then `minivmm resume {}`",
                            message, name);
          },
      .on_scheduled = log_scheduled};
  TRY_ASSIGN(process.snapshots,
             snapshot::SnapshotService::create(std::move(config), std::move(process.guest),
                                               process.store, std::move(process.branch)));
  process.disk_full.attach(process.snapshots.get());
  return {};
}

}  // namespace

Result<void> serve(MachineProcess& process, const RunOptions& options) {
  TRY(start_snapshots(process, options));
  TRY(process.platform->begin());
  TRY(process.console->begin());
  TRY(process.snapshots->begin());
  if (process.pager) TRY(process.pager->bring_ahead(process.pages_ahead));
  process.target = std::make_unique<RunningMachine>(options, *process.machine, *process.platform,
                                                    *process.snapshots);
  TRY_ASSIGN(process.server, ControlServer::start(std::move(*process.listener), *process.target));
  process.listener.reset();
  return {};
}

void serve_running(MachineProcess& process, const RunOptions& options) {
  auto served = serve(process, options);
  if (served) return;
  process.machine->stop({StopReason::Kind::kError, 0, served.error().text()});
}

StopReason stay_with(MachineProcess& process, const RunOptions& options, Foreground& foreground) {
  vmm::Machine& machine = *process.machine;
  auto stop = [&machine] { machine.stop({StopReason::Kind::kRequested, 0, ""}); };
  auto snapshot = [&](bool and_stop) {
    snapshot::SnapshotService::Request request;
    request.stop = and_stop;
    auto begun = process.snapshots->request(request);
    if (!begun) base::log_error("snapshot: {}", begun.error().text());
  };
  Foreground::Machine relay{.name = options.name,
                            .ended = machine.stopped().fd(),
                            .power_button =
                                [&] {
                                  process.snapshots->shutdown_asked();
                                  process.platform->press_power_button();
                                },
                            .stop = stop,
                            .snapshot = [&] { snapshot(false); },
                            .snapshot_and_stop = {},
                            .push_input = {}};
  if (options.snapshots.on_term) relay.snapshot_and_stop = [&] { snapshot(true); };
  if (process.console->takes_input()) {
    relay.push_input = [&](std::span<const uint8_t> bytes) { return process.console->push(bytes); };
  }
  if (auto ran = foreground.run(relay, STDIN_FILENO); !ran) {
    base::log_error("{}", ran.error().text());
    stop();
  }
  return *machine.stop_reason();
}

int report_end(const StopReason& reason) {
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
  return exit_status_of(reason);
}

}  // namespace cli
