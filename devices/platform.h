// All devices of a machine, put together: which device sits where, on which thread it lives, and
// what happens when the guest uses it to end the run. The one place that knows them all.
//
// Created after the machine and destroyed after the machine's vCPU threads are gone
// (Machine::halt_threads()).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "devices/acpi_pm.h"
#include "devices/exit_port.h"
#include "devices/i8042.h"
#include "devices/pci/root.h"
#include "devices/pvpanic.h"
#include "devices/rtc.h"
#include "devices/serial.h"
#include "devices/virtio/device.h"
#include "devices/virtio/pci_transport.h"
#include "vmm/base/event_loop.h"
#include "vmm/base/result.h"
#include "vmm/machine.h"

namespace devices {

struct PlatformConfig {
  bool rng = false;
};

class Platform {
 public:
  static base::Result<std::unique_ptr<Platform>> create(vmm::Machine& machine,
                                                        const PlatformConfig& config);
  ~Platform();

  Serial& serial() { return serial_; }
  // The ACPI power button: a guest that listens shuts itself down.
  void press_power_button() { pm_.press_power_button(); }

 private:
  struct VirtioSlot {
    std::unique_ptr<virtio::Device> device;
    std::unique_ptr<virtio::PciTransport> transport;
  };

  explicit Platform(vmm::Machine& machine);
  base::Result<void> attach_legacy();
  base::Result<void> add_virtio(std::unique_ptr<virtio::Device> device, base::EventLoop& loop);

  vmm::Machine& machine_;
  Serial serial_;
  I8042 i8042_;
  Rtc rtc_;
  AcpiPm pm_;
  Pvpanic pvpanic_;
  ExitPort exit_port_;
  pci::Root pci_;
  // All devices but disks share the first loop.
  std::vector<std::unique_ptr<base::EventLoop>> loops_;
  std::vector<VirtioSlot> virtio_;
};

}  // namespace devices
