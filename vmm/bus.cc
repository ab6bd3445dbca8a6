#include "vmm/bus.h"

#include <fmt/format.h>

#include <algorithm>
#include <mutex>

namespace vmm {

base::Result<void> Bus::attach(uint64_t base, uint64_t size, BusDevice& device,
                               std::string_view name) {
  if (size == 0 || base + size - 1 < base) return base::fail(fmt::format("{}: bad range", name));
  std::unique_lock lock(mutex_);
  auto next = ranges_.lower_bound(base);
  const Range* clash = nullptr;
  if (next != ranges_.end() && next->first - base < size) clash = &next->second;
  if (next != ranges_.begin()) {
    auto before = std::prev(next);
    if (base - before->first < before->second.size) clash = &before->second;
  }
  if (clash != nullptr) {
    return base::fail(fmt::format("{} at {:#x} overlaps {}", name, base, clash->name));
  }
  ranges_.emplace(base, Range{size, &device, name});
  return {};
}

void Bus::detach(uint64_t base) {
  std::unique_lock lock(mutex_);
  ranges_.erase(base);
}

Bus::Target Bus::find(uint64_t address, uint64_t size) const {
  std::shared_lock lock(mutex_);
  auto after = ranges_.upper_bound(address);
  if (after == ranges_.begin()) return {};
  const auto& [base, range] = *std::prev(after);
  uint64_t offset = address - base;
  if (offset >= range.size || size > range.size - offset) return {};
  return {range.device, offset};
}

bool Bus::read(uint64_t address, std::span<uint8_t> data) const {
  Target target = find(address, data.size());
  if (target.device == nullptr) {
    std::ranges::fill(data, uint8_t{0xFF});
    return false;
  }
  target.device->read(target.offset, data);
  return true;
}

bool Bus::write(uint64_t address, std::span<const uint8_t> data) const {
  Target target = find(address, data.size());
  if (target.device == nullptr) return false;
  target.device->write(target.offset, data);
  return true;
}

}  // namespace vmm
