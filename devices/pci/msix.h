// MSI-X (PCI 3.0, 6.8.2): the table of vectors, the pending bits, and the capability that points at
// them. A vector that is masked when it is signalled is remembered and sent when it is unmasked.
//
// Not locked: the function that owns it is.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "devices/pci/config_space.h"
#include "vmm/base/result.h"
#include "vmm/interrupts.h"

namespace pci {

class Msix {
 public:
  static constexpr uint32_t kEntryBytes = 16;

  // Creates `count` vectors (1 to 2048).
  static base::Result<Msix> create(vmm::InterruptController& interrupts, uint16_t count);

  // Adds the capability: table at `table_offset` of BAR 0, pending bits at `pending_offset`.
  void add_capability(ConfigSpace& config, uint32_t table_offset, uint32_t pending_offset);
  // To be called after each write to configuration space: takes over enable and function mask.
  void config_written(const ConfigSpace& config);

  uint16_t count() const { return static_cast<uint16_t>(entries_.size()); }
  uint32_t table_bytes() const { return count() * kEntryBytes; }
  uint32_t pending_bytes() const { return (count() + 63u) / 64 * 8; }

  // Any offset and width: what is outside the table reads 0 and ignores writes.
  void read_table(uint32_t offset, std::span<uint8_t> data) const;
  void write_table(uint32_t offset, std::span<const uint8_t> data);
  void read_pending(uint32_t offset, std::span<uint8_t> data) const;

  // Raises vector `index`; out of range (no vector was chosen) it does nothing.
  void signal(uint16_t index);
  // The device was reset: what was pending no longer stands for anything (PCI 3.0, 6.8.3).
  void clear_pending();

  // Table and pending bits; enable and function mask are in configuration space, which is restored
  // first. restore() sends nothing: signals begin again with signal(), after routes_ready() or
  // without it.
  void save(base::Encoder& to) const;
  base::Result<void> restore(base::Decoder& from, const ConfigSpace& config);
  // After a restore all vectors of a machine are routed in one call: appends those of this table
  // that are not masked.
  void append_routes(std::vector<vmm::MsiRoute>& routes) const;
  void routes_ready();

 private:
  struct Entry {
    uint32_t words[4] = {0, 0, 0, kMasked};  // address low, address high, data, control
    bool pending = false;
    std::optional<vmm::MsiMessage> routed;  // what the vector was set to
    std::unique_ptr<vmm::MsiVector> vector;
  };
  static constexpr uint32_t kMasked = 1;

  bool deliverable(const Entry& entry) const;
  static vmm::MsiMessage message(const Entry& entry);
  void take_control(const ConfigSpace& config);
  // Sends what waited for the entry to be unmasked.
  void flush(Entry& entry);

  std::vector<Entry> entries_;
  uint8_t capability_ = 0;  // offset in configuration space
  bool enabled_ = false;
  bool masked_ = false;
};

}  // namespace pci
