#include "devices/platform.h"

#include "devices/virtio/net_tap.h"
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
  wake_at_thaw_ = false;
  thaw();
  // No handler may run while transports and devices go.
  for (auto& loop : loops_) loop->stop();
}

Result<std::unique_ptr<Platform>> Platform::create(vmm::Machine& machine, PlatformConfig config) {
  std::unique_ptr<Platform> platform(new Platform(machine));
  TRY(platform->attach_legacy());
  TRY_ASSIGN(base::EventLoop * shared, platform->add_loop("devices"));
  TRY(platform->add_disks(config));
  TRY(platform->add_nets(config, *shared));
  TRY(platform->add_others(config, *shared));
  return platform;
}

Result<void> Platform::begin() {
  for (auto& loop : loops_) TRY(loop->begin());
  return {};
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

Result<void> Platform::add_disks(PlatformConfig& config) {
  for (virtio::Block::Options& options : config.disks) {
    TRY_ASSIGN(base::EventLoop * own, add_loop(options.id));
    TRY_ASSIGN(auto disk, virtio::Block::create(std::move(options)));
    disks_.push_back(disk.get());
    TRY(add_virtio(std::move(disk), *own));
  }
  return {};
}

Result<void> Platform::add_nets(const PlatformConfig& config, base::EventLoop& loop) {
  for (size_t i = 0; i < config.nets.size(); ++i) {
    const NetConfig& net = config.nets[i];
    std::unique_ptr<virtio::NetBackend> backend;
    if (net.tap.empty()) {
      TRY_ASSIGN(backend, virtio::UserNetwork::start(net.user));
    } else {
      TRY_ASSIGN(backend, virtio::Tap::open(net.tap));
    }
    auto device =
        std::make_unique<virtio::Net>("net" + std::to_string(i), net.mac, std::move(backend));
    nets_.push_back(device.get());
    TRY(add_virtio(std::move(device), loop));
  }
  return {};
}

Result<void> Platform::add_others(PlatformConfig& config, base::EventLoop& loop) {
  if (config.rng) {
    TRY_ASSIGN(auto rng, virtio::Rng::create("rng"));
    rng_ = rng.get();
    TRY(add_virtio(std::move(rng), loop));
  }
  if (config.console) {
    TRY_ASSIGN(auto console, virtio::Console::create("console", std::move(config.console->input),
                                                     std::move(config.console->output)));
    console_ = console.get();
    TRY(add_virtio(std::move(console), loop));
  }
  if (config.vsock) {
    TRY_ASSIGN(auto vsock, virtio::Vsock::create("vsock", config.vsock->cid, config.vsock->path));
    TRY(add_virtio(std::move(vsock), loop));
  }
  if (config.balloon) {
    TRY_ASSIGN(auto balloon,
               virtio::Balloon::create("balloon", {.guest_bytes = machine_.memory().size()}));
    balloon_ = balloon.get();
    TRY(add_virtio(std::move(balloon), loop));
  }
  return {};
}

Result<base::EventLoop*> Platform::add_loop(std::string name) {
  TRY_ASSIGN(auto loop, base::EventLoop::create_idle(std::move(name)));
  loops_.push_back(std::move(loop));
  return loops_.back().get();
}

Result<void> Platform::add_virtio(std::unique_ptr<virtio::Device> device, base::EventLoop& loop) {
  virtio::PciTransport::Environment environment{
      machine_.memory(), machine_.mmio(), machine_.interrupts(), machine_.doorbells(), pci_, loop};
  std::string tag = "virtio:" + std::string(device->name());
  if (tag.size() > base::kMaxSectionTag) {
    return base::fail("device name '" + std::string(device->name()) + "' is too long");
  }
  for (const VirtioSlot& slot : virtio_) {
    if (slot.tag == tag) {
      return base::fail("two devices are called '" + std::string(device->name()) + "'");
    }
  }
  TRY_ASSIGN(auto transport, virtio::PciTransport::create(environment, *device));
  virtio_.push_back({std::move(device), std::move(transport), std::move(tag)});
  return {};
}

Result<void> Platform::set_balloon(uint64_t mib) {
  if (balloon_ == nullptr) return base::fail("the machine has no balloon: start it with --balloon");
  return balloon_->set_target(mib);
}

virtio::BalloonStatistics Platform::balloon_statistics() {
  for (VirtioSlot& slot : virtio_) {
    if (slot.device.get() != balloon_) continue;
    balloon_->request_statistics();
    return slot.transport->locked([this] { return balloon_->statistics(); });
  }
  return {};
}

std::vector<DeviceStatistics> Platform::statistics() {
  std::vector<DeviceStatistics> all;
  for (const virtio::Block* disk : disks_) {
    const virtio::Block::Counters& c = disk->counters();
    all.push_back({std::string(disk->name()),
                   {{"reads", c.reads},
                    {"writes", c.writes},
                    {"flushes", c.flushes},
                    {"discards", c.discards},
                    {"write_zeroes", c.write_zeroes},
                    {"read_bytes", c.read_bytes},
                    {"written_bytes", c.written_bytes},
                    {"errors", c.errors}}});
  }
  for (const virtio::Net* net : nets_) {
    const virtio::Net::Counters& c = net->counters();
    all.push_back({std::string(net->name()),
                   {{"received_frames", c.received_frames},
                    {"received_bytes", c.received_bytes},
                    {"received_dropped", c.received_dropped},
                    {"sent_frames", c.sent_frames},
                    {"sent_bytes", c.sent_bytes},
                    {"sent_dropped", c.sent_dropped}}});
  }
  if (rng_) all.push_back({"rng", {{"bytes", rng_->bytes()}}});
  if (console_) {
    const virtio::Console::Counters& c = console_->counters();
    all.push_back({"console", {{"input_bytes", c.input_bytes}, {"output_bytes", c.output_bytes}}});
  }
  if (balloon_) {
    virtio::BalloonCounters c = balloon_->counters();
    all.push_back({"balloon",
                   {{"target_mib", balloon_->target_mib()},
                    {"actual_mib", balloon_->actual_mib()},
                    {"inflated_pages", c.inflated},
                    {"deflated_pages", c.deflated},
                    {"reported_pages", c.reported}}});
  }
  return all;
}

}  // namespace devices
