// The PCI host: bus 0 with up to 32 functions, reached through the ports 0xCF8/0xCFC (configuration
// mechanism 1) and through ECAM. Function 0 is the host bridge itself.
//
// Functions are added while the machine is built, before any vCPU runs; they outlive the root.
#pragma once

#include <array>
#include <cstdint>
#include <mutex>

#include "devices/pci/config_space.h"
#include "devices/pci/function.h"
#include "vmm/base/result.h"
#include "vmm/bus.h"
#include "vmm/guest_address.h"

namespace pci {

inline constexpr uint32_t kSlots = 32;

class Root {
 public:
  Root();

  // Attaches the ports to `pio` and ECAM to `mmio`.
  base::Result<void> attach(vmm::Bus& pio, vmm::Bus& mmio);

  // Gives the function the next free device number.
  base::Result<uint32_t> add(Function& function);

  // Takes `size` bytes (a power of two) of the 32-bit memory window, aligned to their size.
  base::Result<vmm::Gpa> allocate_memory(uint32_t size);

  // The host bridge and the address port; the other functions save themselves.
  void save(base::Encoder& to);
  base::Result<void> restore(base::Decoder& from);

 private:
  class HostBridge : public Function {
   public:
    HostBridge();
    void config_read(uint32_t offset, std::span<uint8_t> data) override;
    void config_write(uint32_t offset, std::span<const uint8_t> data) override;
    void save(base::Encoder& to);
    base::Result<void> restore(base::Decoder& from);

   private:
    std::mutex mutex_;
    ConfigSpace config_;
  };
  // 0xCF8: address, 0xCFC: data.
  class Ports : public vmm::BusDevice {
   public:
    explicit Ports(Root& root) : root_(root) {}
    void read(uint64_t offset, std::span<uint8_t> data) override;
    void write(uint64_t offset, std::span<const uint8_t> data) override;
    uint32_t address();
    void set_address(uint32_t address);

   private:
    Root& root_;
    std::mutex mutex_;
    uint32_t address_ = 0;
  };
  class Ecam : public vmm::BusDevice {
   public:
    explicit Ecam(Root& root) : root_(root) {}
    void read(uint64_t offset, std::span<uint8_t> data) override;
    void write(uint64_t offset, std::span<const uint8_t> data) override;

   private:
    Root& root_;
  };

  // The function at `devfn` (device << 3 | function) of bus 0, or none.
  Function* find(uint32_t devfn) const;
  void config_read(uint32_t devfn, uint32_t offset, std::span<uint8_t> data) const;
  void config_write(uint32_t devfn, uint32_t offset, std::span<const uint8_t> data) const;

  HostBridge bridge_;
  Ports ports_{*this};
  Ecam ecam_{*this};
  std::array<Function*, kSlots> functions_{};
  uint64_t next_memory_;
};

}  // namespace pci
