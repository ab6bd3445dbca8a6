// Virtio over PCI (virtio 1.2, 4.1): one PCI function with one BAR that carries a virtio device.
//
//   BAR 0   0x0000  common configuration     (common_config.h)
//           0x1000  ISR status
//           0x2000  device configuration     (Device::read_config)
//           0x3000  notifications, 4 bytes a queue, each an ioeventfd
//           0x4000  MSI-X table: vector 0 to n-1
//           0x5000  MSI-X pending bits
//
// Registers are accessed by vCPU threads, queues are worked off on the device's event loop; one
// mutex makes each such step whole. A kick costs the vCPU nothing but its exit into the kernel.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "devices/pci/msix.h"
#include "devices/pci/root.h"
#include "devices/virtio/common_config.h"
#include "devices/virtio/device.h"
#include "vmm/base/event_loop.h"
#include "vmm/bus.h"
#include "vmm/interrupts.h"

namespace virtio {

class PciTransport : public Transport, public pci::Function, public vmm::BusDevice {
 public:
  // What the transport stands on; all of it outlives the transport.
  struct Environment {
    vmm::GuestMemory& memory;
    vmm::Bus& mmio;
    vmm::InterruptController& interrupts;
    vmm::Doorbells& doorbells;
    pci::Root& root;
    base::EventLoop& loop;
  };
  // Adds the device to the PCI bus, its BAR assigned and enabled.
  static base::Result<std::unique_ptr<PciTransport>> create(Environment environment,
                                                            Device& device);
  ~PciTransport() override;

  // Runs `task` with the device's lock held: how the host's side (a balloon target, statistics)
  // reaches a device safely.
  template <typename Task>
  auto locked(Task task) {
    std::lock_guard lock(mutex_);
    return task();
  }

  // --- snapshots (pci_transport_state.cc) ---
  // From freeze() to thaw(), which the same thread calls, nobody is inside the device: no register
  // is accessed, nothing is popped, pushed or signalled. The functions below are called in between.
  void freeze() { mutex_.lock(); }
  void thaw() { mutex_.unlock(); }
  virtio::DeviceType type() const { return device_.type(); }
  // Transport, queues and device, as they are: nothing is drained. Allocates nothing.
  void save(base::Encoder& to);
  // On a new transport, in two steps because a guest may have exchanged the places of BARs: every
  // transport's restore(), then every one's restart(), which touches no guest memory. After an
  // error the transport is good for nothing but its destructor.
  base::Result<void> restore(base::Decoder& from);
  base::Result<void> restart();
  // Between restart() and wake(): see pci::Msix.
  void append_routes(std::vector<vmm::MsiRoute>& routes) const { msix_.append_routes(routes); }
  void routes_ready() { msix_.routes_ready(); }
  // Last step: whatever kick or interrupt was on its way when the machine was saved happens again.
  // Every queue is looked at, with its requests in flight first, and every vector raised once.
  void wake();

  // pci::Function
  void config_read(uint32_t offset, std::span<uint8_t> data) override;
  void config_write(uint32_t offset, std::span<const uint8_t> data) override;
  // vmm::BusDevice: BAR 0
  void read(uint64_t offset, std::span<uint8_t> data) override;
  void write(uint64_t offset, std::span<const uint8_t> data) override;
  // Transport
  vmm::GuestMemory& memory() override { return env_.memory; }
  bool has_queue(uint16_t index) const override;
  Virtqueue& queue(uint16_t index) override { return *queues_[index]; }
  base::Result<void> interrupt(uint16_t queue) override;
  void config_changed() override;
  void fail(const base::Error& error) override;
  base::Result<void> watch(int fd, uint32_t events, Handler handler) override;
  base::Result<void> change_watch(int fd, uint32_t events) override;
  void unwatch(int fd) override;
  void reset_complete() override;

 private:
  // kStopped: the driver broke the rules, only a reset helps. kResetting: requests are in flight.
  enum class State { kIdle, kActive, kStopped, kResetting };
  static constexpr uint8_t kIsrQueue = 1;  // bits of the ISR status (virtio 1.2, 4.1.4.5)
  static constexpr uint8_t kIsrConfig = 2;
  struct Watch {
    uint64_t id;
    uint32_t events;
    Handler handler;
  };

  PciTransport(Environment environment, Device& device, pci::Msix msix);
  base::Result<void> add_to_bus();
  // A guest can cause any number of warnings: only the first ones reach the host's log.
  void warn(const std::string& what);
  void add_virtio_capability(uint8_t type, uint32_t offset, uint32_t length);
  // Does an access to configuration space touch the window's data?
  bool touches_window(uint32_t offset, size_t size) const;
  // The register behind the window, as long as the driver said; none where it said nonsense.
  struct WindowTarget {
    uint32_t offset = 0;
    uint32_t length = 0;
  };
  WindowTarget window_target() const;

  // Moves BAR 0 and its doorbells to where configuration space says they are.
  void update_mapping();
  void map(uint32_t address);
  void unmap();

  void read_bar(uint32_t offset, std::span<uint8_t> data);
  void write_bar(uint32_t offset, std::span<const uint8_t> data);
  void activate();
  base::Result<void> try_activate();
  void begin_reset();
  void finish_reset();
  void stop_watches();
  void save_queue(uint16_t index, base::Encoder& to);
  base::Result<void> restore_queue(uint16_t index, base::Decoder& from);
  void on_kick(uint16_t queue);
  base::Result<void> process(uint16_t queue);
  void on_watch(int fd, uint64_t id, uint32_t events);
  base::Result<void> start_watch(int fd, const Watch& watch);

  Environment env_;
  Device& device_;
  std::mutex mutex_;
  pci::ConfigSpace config_;
  uint8_t window_capability_ = 0;  // VIRTIO_PCI_CAP_PCI_CFG
  pci::Msix msix_;
  CommonConfig registers_;
  uint8_t isr_ = 0;
  State state_ = State::kIdle;
  unsigned warnings_left_ = 20;
  bool activated_ = false;  // the device's activate() was called since its last reset
  std::vector<std::optional<Virtqueue>> queues_;
  std::vector<base::EventFd> kicks_;
  std::map<int, Watch> watches_;
  uint64_t next_watch_id_ = 0;
  std::optional<uint32_t> mapped_;  // address of BAR 0 on the bus

  // Of a restored device. A queue's requests in flight wait here for its first kick.
  bool map_at_restart_ = false;
  std::vector<QueuePosition> positions_;
  std::vector<std::vector<uint16_t>> unresumed_;
  std::vector<uint16_t> heads_;  // of the queue being saved; kept for its capacity
};

}  // namespace virtio
