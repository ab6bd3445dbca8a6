#include "devices/pci/msix.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <cstring>

#include "vmm/base/endian.h"

namespace pci {

namespace {
constexpr uint8_t kCapabilityMsix = 0x11;
constexpr uint16_t kControlEnable = 1 << 15;
constexpr uint16_t kControlMask = 1 << 14;
}  // namespace

base::Result<Msix> Msix::create(vmm::InterruptController& interrupts, uint16_t count) {
  assert(count >= 1 && count <= 2048);
  Msix msix;
  msix.entries_.resize(count);
  for (Entry& entry : msix.entries_) {
    TRY_ASSIGN(entry.vector, interrupts.create_msi_vector());
  }
  return msix;
}

void Msix::add_capability(ConfigSpace& config, uint32_t table_offset, uint32_t pending_offset) {
  uint8_t body[12] = {kCapabilityMsix};
  base::store_le<uint16_t>(body, 2, static_cast<uint16_t>(count() - 1));
  base::store_le(body, 4, table_offset);    // low three bits: BAR 0
  base::store_le(body, 8, pending_offset);  // likewise
  capability_ = config.add_capability(body);
  const uint8_t control_mask[2] = {0, (kControlEnable | kControlMask) >> 8};
  config.allow_writes(capability_ + 2u, control_mask);
}

void Msix::config_written(const ConfigSpace& config) {
  take_control(config);
  for (Entry& entry : entries_) flush(entry);
}

void Msix::take_control(const ConfigSpace& config) {
  uint16_t control = config.get16(capability_ + 2u);
  enabled_ = control & kControlEnable;
  masked_ = control & kControlMask;
}

void Msix::read_table(uint32_t offset, std::span<uint8_t> data) const {
  std::ranges::fill(data, uint8_t{0});
  for (size_t i = 0; i < data.size(); ++i) {
    size_t at = offset + i;
    if (at >= table_bytes()) return;
    const Entry& entry = entries_[at / kEntryBytes];
    data[i] = static_cast<uint8_t>(entry.words[at % kEntryBytes / 4] >> (at % 4 * 8));
  }
}

void Msix::write_table(uint32_t offset, std::span<const uint8_t> data) {
  // Whole words only (PCI 3.0, 6.8.2: DWORD or QWORD accesses).
  if (offset % 4 != 0 || data.size() % 4 != 0) return;
  for (size_t i = 0; i < data.size(); i += 4) {
    size_t at = offset + i;
    if (at >= table_bytes()) return;
    Entry& entry = entries_[at / kEntryBytes];
    entry.words[at % kEntryBytes / 4] = base::load_le<uint32_t>(data, i);
    flush(entry);
  }
}

void Msix::read_pending(uint32_t offset, std::span<uint8_t> data) const {
  std::ranges::fill(data, uint8_t{0});
  for (size_t i = 0; i < data.size() * 8; ++i) {
    size_t vector = offset * 8ull + i;
    if (vector >= entries_.size()) return;
    if (entries_[vector].pending) data[i / 8] |= static_cast<uint8_t>(1 << (i % 8));
  }
}

void Msix::signal(uint16_t index) {
  if (index >= entries_.size()) return;
  entries_[index].pending = true;
  flush(entries_[index]);
}

void Msix::clear_pending() {
  for (Entry& entry : entries_) entry.pending = false;
}

bool Msix::deliverable(const Entry& entry) const {
  return enabled_ && !masked_ && !(entry.words[3] & kMasked);
}

void Msix::flush(Entry& entry) {
  if (!entry.pending || !deliverable(entry)) return;
  vmm::MsiMessage wanted = message(entry);
  if (wanted != entry.routed) {
    // A message that KVM refuses stays pending: the guest wrote nonsense and gets no interrupt.
    if (!entry.vector->set_message(wanted)) return;
    entry.routed = wanted;
  }
  entry.pending = false;
  entry.vector->signal();
}

vmm::MsiMessage Msix::message(const Entry& entry) {
  return {uint64_t{entry.words[1]} << 32 | entry.words[0], entry.words[2]};
}

void Msix::save(base::Encoder& to) const {
  to.u16(count());
  for (const Entry& entry : entries_) {
    for (uint32_t word : entry.words) to.u32(word);
    to.boolean(entry.pending);
  }
}

base::Result<void> Msix::restore(base::Decoder& from, const ConfigSpace& config) {
  if (uint16_t saved = from.u16(); saved != count()) {
    return base::fail(fmt::format("MSI-X table of {} vectors, this device has {}", saved, count()));
  }
  for (Entry& entry : entries_) {
    for (uint32_t& word : entry.words) word = from.u32();
    entry.pending = from.boolean();
  }
  take_control(config);
  return {};
}

void Msix::append_routes(std::vector<vmm::MsiRoute>& routes) const {
  for (const Entry& entry : entries_) {
    if (deliverable(entry)) routes.push_back({entry.vector.get(), message(entry)});
  }
}

void Msix::routes_ready() {
  for (Entry& entry : entries_) {
    if (deliverable(entry)) entry.routed = message(entry);
  }
}

}  // namespace pci
