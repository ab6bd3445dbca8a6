#include "devices/pci/root.h"

#include <algorithm>

#include "vmm/base/endian.h"
#include "vmm/layout.h"

namespace pci {

using base::fail;
using base::Result;
namespace layout = vmm::layout;

// Vendor and device of the bridge: Intel's 82G33, which Linux knows to have ECAM and no quirks.
Root::HostBridge::HostBridge()
    : config_({.vendor = 0x8086,
               .device = 0x29C0,
               .revision = 0,
               .class_code = 0x060000,
               .subsystem_vendor = 0,
               .subsystem = 0}) {}

void Root::HostBridge::config_read(uint32_t offset, std::span<uint8_t> data) {
  std::lock_guard lock(mutex_);
  config_.read(offset, data);
}

void Root::HostBridge::config_write(uint32_t offset, std::span<const uint8_t> data) {
  std::lock_guard lock(mutex_);
  config_.write(offset, data);
}

void Root::HostBridge::save(base::Encoder& to) {
  std::lock_guard lock(mutex_);
  config_.save(to);
}

Result<void> Root::HostBridge::restore(base::Decoder& from) {
  std::lock_guard lock(mutex_);
  return config_.restore(from);
}

Root::Root() : next_memory_(layout::kPciWindow.value) { functions_[0] = &bridge_; }

Result<void> Root::attach(vmm::Bus& pio, vmm::Bus& mmio) {
  TRY(pio.attach(layout::kPortPciConfig, 8, ports_, "PCI configuration ports"));
  return mmio.attach(layout::kPciEcam.value, layout::kPciEcamSize, ecam_, "PCI ECAM");
}

Result<uint32_t> Root::add(Function& function) {
  auto free = std::ranges::find(functions_, nullptr);
  if (free == functions_.end()) return fail("no PCI slot is free: 31 devices are the most");
  *free = &function;
  return static_cast<uint32_t>(free - functions_.begin());
}

Result<vmm::Gpa> Root::allocate_memory(uint32_t size) {
  uint64_t address = (next_memory_ + size - 1) & ~uint64_t{size - 1};
  if (address + size > layout::kPciWindow.value + layout::kPciWindowSize) {
    return fail("the PCI memory window is full");
  }
  next_memory_ = address + size;
  return vmm::Gpa{address};
}

void Root::save(base::Encoder& to) {
  to.u32(ports_.address());
  bridge_.save(to);
}

Result<void> Root::restore(base::Decoder& from) {
  ports_.set_address(from.u32());
  return bridge_.restore(from);
}

Function* Root::find(uint32_t devfn) const {
  return devfn % 8 == 0 && devfn / 8 < kSlots ? functions_[devfn / 8] : nullptr;
}

void Root::config_read(uint32_t devfn, uint32_t offset, std::span<uint8_t> data) const {
  Function* function = find(devfn);
  if (function == nullptr) {
    std::ranges::fill(data, uint8_t{0xFF});
  } else if (offset + data.size() > 256) {
    std::ranges::fill(data, uint8_t{0});  // no extended capabilities
  } else {
    function->config_read(offset, data);
  }
}

void Root::config_write(uint32_t devfn, uint32_t offset, std::span<const uint8_t> data) const {
  Function* function = find(devfn);
  if (function != nullptr && offset + data.size() <= 256) function->config_write(offset, data);
}

namespace {

// CONFIG_ADDRESS (PCI 3.0, 3.2.2.3.2): enable, bus, devfn, register.
constexpr uint32_t kEnable = 1u << 31;
bool is_bus_zero(uint32_t address) {
  return (address & kEnable) != 0 && (address >> 16 & 0xFF) == 0;
}

}  // namespace

void Root::Ports::read(uint64_t offset, std::span<uint8_t> data) {
  std::ranges::fill(data, uint8_t{0xFF});
  uint32_t selected = address();
  if (offset == 0 && data.size() == 4) {
    base::store_le(data, 0, selected);
  } else if (offset >= 4 && data.size() <= 4 && is_bus_zero(selected)) {
    auto at = static_cast<uint32_t>((selected & 0xFC) + (offset - 4));
    root_.config_read(selected >> 8 & 0xFF, at, data);
  }
}

uint32_t Root::Ports::address() {
  std::lock_guard lock(mutex_);
  return address_;
}

void Root::Ports::set_address(uint32_t address) {
  std::lock_guard lock(mutex_);
  address_ = address;
}

void Root::Ports::write(uint64_t offset, std::span<const uint8_t> data) {
  if (offset == 0 && data.size() == 4) set_address(base::load_le<uint32_t>(data));
  uint32_t selected = address();
  if (offset < 4 || data.size() > 4 || !is_bus_zero(selected)) return;
  auto at = static_cast<uint32_t>((selected & 0xFC) + (offset - 4));
  root_.config_write(selected >> 8 & 0xFF, at, data);
}

// ECAM offset (PCIe 7.2.2): devfn << 12 | register.
void Root::Ecam::read(uint64_t offset, std::span<uint8_t> data) {
  std::ranges::fill(data, uint8_t{0xFF});
  if (data.size() > 4) return;
  root_.config_read(static_cast<uint32_t>(offset >> 12), offset & 0xFFF, data);
}

void Root::Ecam::write(uint64_t offset, std::span<const uint8_t> data) {
  if (data.size() > 4) return;
  root_.config_write(static_cast<uint32_t>(offset >> 12), offset & 0xFFF, data);
}

}  // namespace pci
