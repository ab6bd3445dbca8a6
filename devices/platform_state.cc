// The devices of a machine in a snapshot, and the barrier under which they are saved. Sections:
// "devices" (which there are, in PCI order), one for each device of a PC, "virtio:<name>" for each
// virtio device. A section's format is described where it is written.
#include <fmt/format.h>

#include <cassert>
#include <ranges>

#include "devices/platform.h"
#include "vmm/acpi/generation_id.h"
#include "vmm/layout.h"

namespace devices {

using base::fail;
using base::Result;

namespace {

// One for each section; a change of a format changes it.
constexpr uint32_t kVersion = 2;
// No state: the section says that it was thought of.
constexpr std::array kStateless = {"i8042", "pvpanic", "exit-port"};

std::string describe(std::string_view name, uint16_t type) {
  return fmt::format("'{}' (virtio type {})", name, type);
}

}  // namespace

void Platform::hold() {
  if (held_) return;
  for (auto& loop : loops_) loop->hold();
  held_ = true;
}

void Platform::freeze() {
  assert(!frozen_);
  hold();
  for (VirtioSlot& slot : virtio_) slot.transport->freeze();
  {
    std::lock_guard lock(power_mutex_);
    power_kept_ = true;
  }
  frozen_ = true;
}

void Platform::thaw() {
  if (std::exchange(wake_at_thaw_, false)) {
    for (VirtioSlot& slot : virtio_) slot.transport->wake();
  }
  if (std::exchange(frozen_, false)) {
    std::lock_guard lock(power_mutex_);
    power_kept_ = false;
    if (std::exchange(power_pressed_, false)) pm_.press_power_button();
    for (VirtioSlot& slot : virtio_ | std::views::reverse) slot.transport->thaw();
  }
  if (std::exchange(held_, false)) {
    for (auto& loop : loops_ | std::views::reverse) loop->release();
  }
}

// Serial port, clock and power management lock themselves for a moment each: they have no thread
// and no queue. The host's side may press a key between them and the interrupt chips; restore()
// brings the line to what the serial port says, so that nothing is lost. Not so with the level-
// triggered SCI, which press_power_button() keeps for later: raised after the local APICs were read
// and before the IOAPIC is, it would be saved as delivered, by a chip that waits for its EOI, to no
// one.
void Platform::save(base::SectionWriter& to) {
  assert(frozen_);
  base::Encoder list = to.begin("devices", kVersion);
  list.u16(static_cast<uint16_t>(virtio_.size()));
  for (const VirtioSlot& slot : virtio_) {
    list.u16(static_cast<uint16_t>(slot.device->type()));
    list.string(slot.device->name());
  }
  auto section = [&](std::string_view tag, auto& device) {
    base::Encoder encoder = to.begin(tag, kVersion);
    device.save(encoder);
  };
  section("serial", serial_);
  section("rtc", rtc_);
  section("acpi-pm", pm_);
  section("pci", pci_);
  for (const char* tag : kStateless) to.begin(tag, kVersion);
  for (VirtioSlot& slot : virtio_) section(slot.tag, *slot.transport);
}

Result<void> Platform::restore(base::SectionReader& from) {
  assert(frozen_);
  TRY(check_devices(from));
  TRY(restore_legacy(from));
  TRY(restore_virtio(from));
  wake_at_thaw_ = true;
  return {};
}

void Platform::press_power_button() {
  std::lock_guard lock(power_mutex_);
  if (power_kept_) {
    power_pressed_ = true;
  } else {
    pm_.press_power_button();
  }
}

Result<void> Platform::new_generation() {
  TRY(vmm::acpi::write_generation_id(machine_.memory()));
  pm_.raise_event(vmm::layout::kGpeGeneration);
  return {};
}

Result<void> Platform::check_devices(base::SectionReader& from) const {
  TRY_ASSIGN(base::Decoder list, from.take("devices", kVersion));
  uint16_t count = list.u16();
  for (uint16_t i = 0; i < count && list.ok(); ++i) {
    uint16_t type = list.u16();
    std::string name = list.string(base::kMaxSectionTag);
    if (!list.ok()) break;
    std::string saved = describe(name, type);
    if (i >= virtio_.size()) {
      return fail(
          fmt::format("the snapshot's device {} is {}, this machine has only {}: give it "
                      "the devices it was saved with",
                      i + 1, saved, virtio_.size()));
    }
    const virtio::Device& device = *virtio_[i].device;
    std::string here = describe(device.name(), static_cast<uint16_t>(device.type()));
    if (saved != here) {
      return fail(
          fmt::format("the snapshot's device {} is {}, this machine's is {}: give it the "
                      "devices it was saved with, in the same order",
                      i + 1, saved, here));
    }
  }
  TRY(list.finish("section 'devices'"));
  if (count < virtio_.size()) {
    const virtio::Device& device = *virtio_[count].device;
    return fail(fmt::format("this machine has {}, which the snapshot has not: leave it away",
                            describe(device.name(), static_cast<uint16_t>(device.type()))));
  }
  return {};
}

namespace {

// Takes the section and has `device` restored from all of it.
template <typename Device>
Result<void> restore_section(base::SectionReader& from, std::string_view tag, Device& device) {
  TRY_ASSIGN(base::Decoder decoder, from.take(tag, kVersion));
  std::string what = fmt::format("section '{}'", tag);
  auto restored = device.restore(decoder);
  // Where bytes are missing zeroes were read: that, not what they led to, is the reason.
  if (!restored && decoder.ok()) return std::unexpected(restored.error().with(what));
  return decoder.finish(what);
}

struct Stateless {
  Result<void> restore(base::Decoder&) { return {}; }
};

}  // namespace

Result<void> Platform::restore_legacy(base::SectionReader& from) {
  TRY(restore_section(from, "serial", serial_));
  TRY(restore_section(from, "rtc", rtc_));
  TRY(restore_section(from, "acpi-pm", pm_));
  TRY(restore_section(from, "pci", pci_));
  Stateless nothing;
  for (const char* tag : kStateless) TRY(restore_section(from, tag, nothing));
  return {};
}

Result<void> Platform::restore_virtio(base::SectionReader& from) {
  for (VirtioSlot& slot : virtio_) TRY(restore_section(from, slot.tag, *slot.transport));
  for (VirtioSlot& slot : virtio_) {
    if (auto restarted = slot.transport->restart(); !restarted) {
      return std::unexpected(restarted.error().with(fmt::format("section '{}'", slot.tag)));
    }
  }
  route_interrupts();
  return {};
}

// One call for all vectors of the machine. Where the kernel refuses (a guest may have written a
// message that is nonsense), each is routed when it is first raised, as on a running machine.
void Platform::route_interrupts() {
  std::vector<vmm::MsiRoute> routes;
  for (VirtioSlot& slot : virtio_) slot.transport->append_routes(routes);
  if (!machine_.interrupts().set_messages(routes)) return;
  for (VirtioSlot& slot : virtio_) slot.transport->routes_ready();
}

}  // namespace devices
