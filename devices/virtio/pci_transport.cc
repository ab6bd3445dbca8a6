#include "devices/virtio/pci_transport.h"

#include <sys/epoll.h>

#include <algorithm>
#include <array>

#include "vmm/base/endian.h"
#include "vmm/base/log.h"

namespace virtio {

using base::Result;

namespace {

constexpr uint32_t kBarSize = 0x8000;
constexpr uint32_t kRegionSize = 0x1000;
enum Region : uint32_t {
  kCommon = 0x0000,
  kIsr = 0x1000,
  kDevice = 0x2000,
  kNotify = 0x3000,
  kMsixTable = 0x4000,
  kMsixPending = 0x5000,
};
constexpr uint32_t kNotifyMultiplier = 4;

// Capabilities (virtio 1.2, 4.1.4).
constexpr uint8_t kCapVendor = 0x09;
constexpr uint8_t kCapCommon = 1;
constexpr uint8_t kCapNotify = 2;
constexpr uint8_t kCapIsr = 3;
constexpr uint8_t kCapDevice = 4;
constexpr uint8_t kCapPciWindow = 5;
// Inside the PCI window capability: bar at 4, offset at 8, length at 12, data at 16.
constexpr uint32_t kWindowData = 16;

// PCI class codes, so that `lspci` in the guest says what it sees.
uint32_t class_code(DeviceType type) {
  switch (type) {
    case DeviceType::kNet:
      return 0x020000;
    case DeviceType::kBlock:
      return 0x018000;
    case DeviceType::kConsole:
      return 0x078000;
    default:
      return 0x00FF00;
  }
}

// Device IDs of non-transitional devices (virtio 1.2, 4.1.2).
pci::ConfigSpace::Identity identity(DeviceType type) {
  return {.vendor = 0x1AF4,
          .device = static_cast<uint16_t>(0x1040 + static_cast<uint16_t>(type)),
          .revision = 1,
          .class_code = class_code(type),
          .subsystem_vendor = 0x1AF4,
          .subsystem = 0x40};
}

constexpr uint64_t kTransportFeatures = kFeatureVersion1 | kFeatureIndirect | kFeatureEventIndex;

}  // namespace

Result<std::unique_ptr<PciTransport>> PciTransport::create(Environment environment,
                                                           Device& device) {
  // One vector for configuration changes, one for each queue.
  auto vectors = static_cast<uint16_t>(1 + device.queue_sizes().size());
  TRY_ASSIGN(pci::Msix msix, pci::Msix::create(environment.interrupts, vectors));
  std::unique_ptr<PciTransport> transport(new PciTransport(environment, device, std::move(msix)));
  TRY(transport->add_to_bus());
  return transport;
}

PciTransport::PciTransport(Environment environment, Device& device, pci::Msix msix)
    : env_(environment),
      device_(device),
      config_(identity(device.type())),
      msix_(std::move(msix)),
      registers_(device.features() | kTransportFeatures, msix_.count(), device.queue_sizes()),
      queues_(device.queue_sizes().size()),
      positions_(queues_.size()),
      unresumed_(queues_.size()) {
  heads_.reserve(kMaxQueueSize);
}

PciTransport::~PciTransport() {
  for (auto& [fd, watch] : watches_) env_.loop.unwatch(fd);
  if (state_ != State::kIdle) {
    for (auto& kick : kicks_) env_.loop.unwatch(kick.fd());
  }
  unmap();
}

Result<void> PciTransport::add_to_bus() {
  for (size_t i = 0; i < queues_.size(); ++i) {
    TRY_ASSIGN(base::EventFd kick, base::EventFd::create());
    kicks_.push_back(std::move(kick));
  }
  TRY_ASSIGN(vmm::Gpa bar, env_.root.allocate_memory(kBarSize));
  config_.set_bar0(static_cast<uint32_t>(bar.value), kBarSize);
  add_virtio_capability(kCapCommon, kCommon, CommonConfig::kSize);
  add_virtio_capability(kCapIsr, kIsr, 1);
  add_virtio_capability(kCapDevice, kDevice, kRegionSize);
  add_virtio_capability(kCapNotify, kNotify,
                        kNotifyMultiplier * static_cast<uint32_t>(kicks_.size()));
  add_virtio_capability(kCapPciWindow, 0, 0);
  msix_.add_capability(config_, kMsixTable, kMsixPending);
  update_mapping();
  TRY(env_.root.add(*this));
  return {};
}

void PciTransport::warn(const std::string& what) {
  if (warnings_left_ == 0) return;
  base::log_warning("{}: {}{}", device_.name(), what,
                    --warnings_left_ == 0 ? " (its further warnings are not shown)" : "");
}

void PciTransport::add_virtio_capability(uint8_t type, uint32_t offset, uint32_t length) {
  // struct virtio_pci_cap, and what kCapNotify and kCapPciWindow append to it.
  uint8_t body[20] = {kCapVendor, 0, 16, type};
  base::store_le(body, 8, offset);
  base::store_le(body, 12, length);
  if (type == kCapNotify) base::store_le(body, 16, kNotifyMultiplier);
  bool longer = type == kCapNotify || type == kCapPciWindow;
  body[2] = longer ? 20 : 16;
  uint8_t at = config_.add_capability(std::span(body).first(body[2]));
  if (type != kCapPciWindow) return;
  window_capability_ = at;
  const uint8_t bar_mask[1] = {0xFF};
  const uint8_t rest_mask[12] = {0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF,
                                 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF};
  config_.allow_writes(at + 4u, bar_mask);
  config_.allow_writes(at + 8u, rest_mask);
}

// --- configuration space and the place of BAR 0 ---

void PciTransport::config_read(uint32_t offset, std::span<uint8_t> data) {
  std::lock_guard lock(mutex_);
  if (touches_window(offset, data.size())) {
    std::array<uint8_t, 4> value;
    WindowTarget target = window_target();
    auto bytes = std::span(value).first(target.length);
    read_bar(target.offset, bytes);
    config_.write(window_capability_ + kWindowData, bytes);
  }
  config_.read(offset, data);
}

void PciTransport::config_write(uint32_t offset, std::span<const uint8_t> data) {
  std::lock_guard lock(mutex_);
  config_.write(offset, data);
  msix_.config_written(config_);
  if (offset < pci::kBar0 + 4) update_mapping();
  if (touches_window(offset, data.size())) {
    std::array<uint8_t, 4> value;
    WindowTarget target = window_target();
    auto bytes = std::span(value).first(target.length);
    config_.read(window_capability_ + kWindowData, bytes);
    if (!bytes.empty()) write_bar(target.offset, bytes);
  }
}

bool PciTransport::touches_window(uint32_t offset, size_t size) const {
  uint32_t data = window_capability_ + kWindowData;
  return offset < data + 4 && offset + size > data;
}

// Virtio 1.2, 4.1.4.9: the access has the length that the capability says, not that of the access
// to the data field.
PciTransport::WindowTarget PciTransport::window_target() const {
  std::array<uint8_t, kWindowData> capability;
  config_.read(window_capability_, capability);
  uint8_t bar = capability[4];
  auto offset = base::load_le<uint32_t>(capability, 8);
  auto length = base::load_le<uint32_t>(capability, 12);
  bool aligned = (length == 1 || length == 2 || length == 4) && offset % length == 0;
  if (bar != 0 || !aligned || offset >= kBarSize) return {};
  return {offset, length};
}

void PciTransport::update_mapping() {
  uint32_t address = config_.bar0();
  bool wanted = config_.memory_enabled();
  if (mapped_ && wanted && *mapped_ == address) return;
  unmap();
  if (wanted) map(address);
}

void PciTransport::map(uint32_t address) {
  // A guest may put its BAR over something else: then the BAR is nowhere until it moves again.
  if (auto attached = env_.mmio.attach(address, kBarSize, *this, device_.name()); !attached) {
    warn("BAR 0 not mapped: " + attached.error().text());
    return;
  }
  mapped_ = address;
  for (uint32_t i = 0; i < kicks_.size(); ++i) {
    vmm::Gpa doorbell{address + kNotify + i * kNotifyMultiplier};
    // Without an ioeventfd a kick is an MMIO exit that write_bar() handles: slower, not wrong.
    if (auto attached = env_.doorbells.attach_doorbell(doorbell, kicks_[i]); !attached) {
      warn("no ioeventfd: " + attached.error().text());
    }
  }
}

void PciTransport::unmap() {
  if (!mapped_) return;
  for (uint32_t i = 0; i < kicks_.size(); ++i) {
    vmm::Gpa doorbell{*mapped_ + kNotify + i * kNotifyMultiplier};
    env_.doorbells.detach_doorbell(doorbell, kicks_[i]);
  }
  env_.mmio.detach(*mapped_);
  mapped_.reset();
}

// --- BAR 0 ---

void PciTransport::read(uint64_t offset, std::span<uint8_t> data) {
  std::lock_guard lock(mutex_);
  read_bar(static_cast<uint32_t>(offset), data);
}

void PciTransport::write(uint64_t offset, std::span<const uint8_t> data) {
  std::lock_guard lock(mutex_);
  write_bar(static_cast<uint32_t>(offset), data);
}

void PciTransport::read_bar(uint32_t offset, std::span<uint8_t> data) {
  std::ranges::fill(data, uint8_t{0});
  uint32_t inside = offset % kRegionSize;
  switch (offset - inside) {
    case kCommon:
      return registers_.read(inside, data);
    case kIsr:
      if (inside == 0) data[0] = std::exchange(isr_, uint8_t{0});
      return;
    case kDevice:
      return device_.read_config(inside, data);
    case kMsixTable:
      return msix_.read_table(inside, data);
    case kMsixPending:
      return msix_.read_pending(inside, data);
    default:
      return;
  }
}

void PciTransport::write_bar(uint32_t offset, std::span<const uint8_t> data) {
  uint32_t inside = offset % kRegionSize;
  switch (offset - inside) {
    case kCommon:
      if (state_ == State::kResetting) return;
      switch (registers_.write(inside, data)) {
        case CommonConfig::Action::kNone:
          return;
        case CommonConfig::Action::kReset:
          return begin_reset();
        case CommonConfig::Action::kActivate:
          return activate();
      }
      return;
    case kDevice:
      return device_.write_config(inside, data);
    case kNotify:
      if (inside / kNotifyMultiplier < kicks_.size()) kicks_[inside / kNotifyMultiplier].signal();
      return;
    case kMsixTable:
      return msix_.write_table(inside, data);
    default:
      return;
  }
}

// --- life of the device ---

void PciTransport::activate() {
  if (state_ != State::kIdle) return;
  state_ = State::kActive;
  if (auto activated = try_activate(); !activated) fail(activated.error());
}

Result<void> PciTransport::try_activate() {
  for (uint16_t i = 0, count = static_cast<uint16_t>(queues_.size()); i < count; ++i) {
    if (!registers_.queues()[i].enabled) continue;
    TRY_ASSIGN(queues_[i],
               Virtqueue::create(env_.memory, registers_.queue_layout(i), positions_[i]));
  }
  activated_ = true;
  TRY(device_.activate(*this, registers_.driver_features()));
  for (uint16_t i = 0, count = static_cast<uint16_t>(kicks_.size()); i < count; ++i) {
    if (!queues_[i]) continue;
    // A kick that came before counts: the descriptor is readable at once.
    TRY(env_.loop.watch(kicks_[i].fd(), EPOLLIN, [this, i](uint32_t) { on_kick(i); }));
  }
  return {};
}

void PciTransport::begin_reset() {
  if (state_ == State::kIdle) return finish_reset();
  // A stopped device may have requests in flight: their completions are wanted again.
  if (state_ == State::kStopped) {
    for (auto& [fd, watch] : watches_) {
      if (auto started = start_watch(fd, watch); !started) {
        warn(started.error().text());
      }
    }
  }
  state_ = State::kResetting;
  for (auto& kick : kicks_) env_.loop.unwatch(kick.fd());
  if (!activated_ || device_.reset()) finish_reset();
}

void PciTransport::reset_complete() {
  if (state_ == State::kResetting) finish_reset();
}

void PciTransport::finish_reset() {
  while (!watches_.empty()) unwatch(watches_.begin()->first);
  for (auto& queue : queues_) queue.reset();
  for (auto& position : positions_) position = {};
  for (auto& heads : unresumed_) heads.clear();
  registers_.reset();
  msix_.clear_pending();
  isr_ = 0;
  activated_ = false;
  state_ = State::kIdle;
}

void PciTransport::fail(const base::Error& error) {
  if (state_ != State::kActive) return;
  warn("stopped until the guest resets it: " + error.text());
  state_ = State::kStopped;
  stop_watches();
  registers_.set_needs_reset();
  config_changed();
}

// Descriptors that stay readable must not keep the loop busy.
void PciTransport::stop_watches() {
  for (auto& [fd, watch] : watches_) env_.loop.unwatch(fd);
}

// --- what the device asks for ---

bool PciTransport::has_queue(uint16_t index) const {
  return index < queues_.size() && queues_[index].has_value();
}

Result<void> PciTransport::interrupt(uint16_t queue) {
  TRY_ASSIGN(bool needed, queues_[queue]->needs_interrupt());
  if (!needed) return {};
  isr_ |= kIsrQueue;
  msix_.signal(registers_.queues()[queue].vector);
  return {};
}

void PciTransport::config_changed() {
  registers_.count_generation();
  if (!(registers_.status() & kStatusDriverOk)) return;
  isr_ |= kIsrConfig;
  msix_.signal(registers_.config_vector());
}

void PciTransport::on_kick(uint16_t queue) {
  std::lock_guard lock(mutex_);
  kicks_[queue].consume();
  // This may be a kick of before a reset, after which the queue was not enabled again.
  if (state_ != State::kActive || !queues_[queue]) return;
  if (auto processed = process(queue); !processed) fail(processed.error());
}

Result<void> PciTransport::process(uint16_t queue) {
  if (!unresumed_[queue].empty()) {
    auto heads = std::exchange(unresumed_[queue], {});
    TRY(device_.resume(queue, heads));
  }
  return device_.process(queue);
}

Result<void> PciTransport::start_watch(int fd, const Watch& watch) {
  return env_.loop.watch(fd, watch.events,
                         [this, fd, id = watch.id](uint32_t ready) { on_watch(fd, id, ready); });
}

Result<void> PciTransport::watch(int fd, uint32_t events, Handler handler) {
  Watch watch{next_watch_id_++, events, std::move(handler)};
  // A stopped device is not woken; should its reset need the descriptor, begin_reset() starts it.
  if (state_ != State::kStopped) TRY(start_watch(fd, watch));
  watches_[fd] = std::move(watch);
  return {};
}

Result<void> PciTransport::change_watch(int fd, uint32_t events) {
  auto found = watches_.find(fd);
  if (found == watches_.end()) return base::fail("descriptor is not watched");
  found->second.events = events;
  return state_ == State::kStopped ? Result<void>{} : env_.loop.change(fd, events);
}

void PciTransport::unwatch(int fd) {
  if (watches_.erase(fd) != 0 && state_ != State::kStopped) env_.loop.unwatch(fd);
}

void PciTransport::on_watch(int fd, uint64_t id, uint32_t events) {
  std::lock_guard lock(mutex_);
  // Between the event and the lock the device may have stopped or let go of the descriptor, or been
  // reset and activated again.
  auto found = watches_.find(fd);
  if (found == watches_.end() || found->second.id != id) return;
  if (state_ != State::kActive && state_ != State::kResetting) return;
  Handler handler = found->second.handler;
  if (auto handled = handler(events); !handled) fail(handled.error());
}

}  // namespace virtio
