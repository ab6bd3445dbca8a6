// All devices of a machine, put together: which device sits where, on which thread it lives, and
// what happens when the guest uses it to end the run. The one place that knows them all.
//
// Created after the machine and destroyed after the machine's vCPU threads are gone
// (Machine::halt_threads()).
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "devices/acpi_pm.h"
#include "devices/exit_port.h"
#include "devices/i8042.h"
#include "devices/pci/root.h"
#include "devices/pvpanic.h"
#include "devices/rtc.h"
#include "devices/serial.h"
#include "devices/statistics.h"
#include "devices/virtio/balloon.h"
#include "devices/virtio/block.h"
#include "devices/virtio/console.h"
#include "devices/virtio/device.h"
#include "devices/virtio/net.h"
#include "devices/virtio/net_user.h"
#include "devices/virtio/pci_transport.h"
#include "devices/virtio/rng.h"
#include "devices/virtio/vsock.h"
#include "vmm/base/event_loop.h"
#include "vmm/base/result.h"
#include "vmm/base/sections.h"
#include "vmm/machine.h"

namespace devices {

struct NetConfig {
  std::string tap;  // an interface of the host; empty: user mode
  virtio::UserNetwork::Options user;
  virtio::MacAddress mac{};
};

struct PlatformConfig {
  std::vector<virtio::Block::Options> disks;  // in this order on the PCI bus: vda, vdb, …
  std::vector<NetConfig> nets;
  bool rng = false;
  bool balloon = false;
  struct Vsock {
    uint32_t cid = 0;
    std::string path;
  };
  std::optional<Vsock> vsock;
  // The virtio console's host side: descriptors that do not block, taken over.
  struct Console {
    base::Fd input, output;
  };
  std::optional<Console> console;
};

class Platform {
 public:
  static base::Result<std::unique_ptr<Platform>> create(vmm::Machine& machine,
                                                        PlatformConfig config);
  // The devices' threads, without which nothing is done for the guest. It may run before: what it
  // asks for waits.
  base::Result<void> begin();
  ~Platform();

  Serial& serial() { return serial_; }
  // The ACPI power button: a guest that listens shuts itself down. Between freeze() and thaw() it
  // is kept until then. Any thread; waits for nobody.
  void press_power_button();
  // Fails where the machine has no balloon.
  base::Result<void> set_balloon(uint64_t mib);
  const virtio::Balloon* balloon() const { return balloon_; }
  // What the guest said last time, all empty without a balloon; asks it for the next time.
  virtio::BalloonStatistics balloon_statistics();
  std::vector<DeviceStatistics> statistics();

  // --- snapshots (platform_state.cc) ---
  // The device barrier. After freeze() every device is between two requests: what the rings say,
  // the list of requests in flight, the dirty marks and the interrupts agree, and nothing of it
  // changes until thaw(). Transfers of the host's kernel that are on their way go on; only the
  // memory that reads in flight write to may change.
  //
  // Before the vCPUs are stopped, hold() keeps device threads from beginning anything new, so that
  // no pause has to wait for one; freeze() does it where that was not done. The vCPUs must be out
  // of the guest before freeze(): one that waits for a frozen device never stops.
  //
  // Order, against deadlock: event loops as they were made, then transports in PCI order. No device
  // holds a lock of another one, and none of these while it takes a loop's. All of this is called
  // by one thread.
  void hold();
  void freeze();
  void thaw();

  // Between freeze() and thaw(): one section for each device, after one that lists them. Allocates
  // nothing where `to` has room. Input and output that lie on the host's side of a device stay
  // with this machine.
  void save(base::SectionWriter& to);
  // Between freeze() and thaw(), on a platform just made, once KVM's own state is restored: lines
  // are set and messages routed. Guest memory is not touched. thaw() lets the devices run: it
  // repeats every kick and interrupt that may have been on its way. The devices must be those
  // of the snapshot; an error names the difference, and the platform is then to be destroyed.
  base::Result<void> restore(base::SectionReader& from);
  // For each restored copy, once its memory can be written: gives it a generation ID of its own and
  // notifies it, so that its kernel draws new random numbers.
  base::Result<void> new_generation();

 private:
  struct VirtioSlot {
    std::unique_ptr<virtio::Device> device;
    std::unique_ptr<virtio::PciTransport> transport;
    std::string tag;  // of its section in a snapshot
  };

  explicit Platform(vmm::Machine& machine);
  base::Result<void> attach_legacy();
  base::Result<void> add_disks(PlatformConfig& config);
  base::Result<void> add_nets(const PlatformConfig& config, base::EventLoop& loop);
  base::Result<void> add_others(PlatformConfig& config, base::EventLoop& loop);
  base::Result<base::EventLoop*> add_loop(std::string name);
  base::Result<void> add_virtio(std::unique_ptr<virtio::Device> device, base::EventLoop& loop);
  base::Result<void> check_devices(base::SectionReader& from) const;
  base::Result<void> restore_legacy(base::SectionReader& from);
  base::Result<void> restore_virtio(base::SectionReader& from);
  void route_interrupts();

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
  // Those of the above that more is asked of than being a virtio device.
  std::vector<const virtio::Block*> disks_;
  std::vector<const virtio::Net*> nets_;
  virtio::Balloon* balloon_ = nullptr;
  const virtio::Rng* rng_ = nullptr;
  const virtio::Console* console_ = nullptr;

  std::mutex power_mutex_;      // guards the following two
  bool power_kept_ = false;     // from freeze() to thaw()
  bool power_pressed_ = false;  // meanwhile
  bool held_ = false;
  bool frozen_ = false;
  bool wake_at_thaw_ = false;  // it was restored
};

}  // namespace devices
