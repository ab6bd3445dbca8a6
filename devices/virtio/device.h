// A virtio device and the transport that carries it (virtio 1.2, sections 2 and 5), each as the
// other sees it. Every function of either is called with the transport's lock held, so a device
// needs no locking for what only it and its queues touch.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "devices/virtio/virtqueue.h"
#include "vmm/base/codec.h"
#include "vmm/base/result.h"
#include "vmm/guest_memory.h"

namespace virtio {

// Feature bits that belong to the transport, not to a device (virtio 1.2, section 6).
inline constexpr uint64_t kFeatureIndirect = 1ull << 28;
inline constexpr uint64_t kFeatureEventIndex = 1ull << 29;
inline constexpr uint64_t kFeatureVersion1 = 1ull << 32;

enum class DeviceType : uint16_t {  // virtio 1.2, section 5
  kNet = 1,
  kBlock = 2,
  kConsole = 3,
  kEntropy = 4,
  kBalloon = 5,
  kVsock = 19,
};

// What a device may ask of its transport, from activate() to the end of its reset().
class Transport {
 public:
  // A handler that fails stops the device, as an error from process() does.
  using Handler = std::function<base::Result<void>(uint32_t events)>;

  virtual ~Transport() = default;
  virtual vmm::GuestMemory& memory() = 0;
  // True where the driver enabled the queue; only then queue() may be called.
  virtual bool has_queue(uint16_t index) const = 0;
  virtual Virtqueue& queue(uint16_t index) = 0;
  // After push(): raises the queue's interrupt where the driver wants one.
  virtual base::Result<void> interrupt(uint16_t queue) = 0;
  // Tells the driver that the device's configuration changed.
  virtual void config_changed() = 0;
  // The driver broke the rules, or the device cannot go on: DEVICE_NEEDS_RESET, nothing more is
  // processed until the driver resets the device.
  virtual void fail(const base::Error& error) = 0;
  // Has `handler` called, with the lock held, on the device's event loop.
  virtual base::Result<void> watch(int fd, uint32_t events, Handler handler) = 0;
  virtual base::Result<void> change_watch(int fd, uint32_t events) = 0;
  virtual void unwatch(int fd) = 0;
  // Ends a reset() that returned false.
  virtual void reset_complete() = 0;
};

class Device {
 public:
  virtual ~Device() = default;
  virtual DeviceType type() const = 0;
  // For people: log lines and statistics.
  virtual std::string_view name() const = 0;
  // Feature bits offered beside the transport's own.
  virtual uint64_t features() const = 0;
  // Largest size of each queue; their number is the number of queues.
  virtual std::vector<uint16_t> queue_sizes() const = 0;

  // Device configuration: any offset and width, outside of it reads give 0 and writes do nothing.
  virtual void read_config(uint32_t offset, std::span<uint8_t> data) const = 0;
  virtual void write_config(uint32_t /*offset*/, std::span<const uint8_t> /*data*/) {}

  // DRIVER_OK, or a restored machine whose driver had come that far: the device may use its queues
  // from now on. `features` are those both sides took. Called on a vCPU's thread, and while the
  // memory of a restored guest is not there yet: it must not wait and leaves guest memory alone.
  virtual base::Result<void> activate(Transport& transport, uint64_t features) = 0;
  // The driver kicked `queue`, which exists. Called on the device's event loop.
  virtual base::Result<void> process(uint16_t queue) = 0;
  // Gives up queues and watches. True where that is done at once; a device with requests in flight
  // returns false and calls reset_complete() after the last one. Called after activate(), also
  // after one that failed.
  virtual bool reset() = 0;

  // What of the device the driver can tell, beside registers and queues, which the transport saves.
  // Nothing is drained for it; what lies between host and device stays with this machine.
  virtual void save(base::Encoder& to) const = 0;
  // On a new device, before activate(). The bytes are hostile; the error is a sentence.
  virtual base::Result<void> restore(base::Decoder& from) = 0;
  // Appends the heads of the chains of `queue` that were popped and not given back. Most devices
  // hold none between two calls.
  virtual void list_in_flight(uint16_t /*queue*/, std::vector<uint16_t>& /*heads*/) const {}
  // After a restore and activate(), on the event loop before the first process(): the chains of
  // `queue` that were in flight, by different heads, each below the queue's size.
  virtual base::Result<void> resume(uint16_t queue, std::span<const uint16_t> heads);
};

inline base::Result<void> Device::resume(uint16_t queue, std::span<const uint16_t> /*heads*/) {
  return base::fail("requests in flight on queue " + std::to_string(queue) +
                    ", which this device answers at once");
}

// Helper of read_config(): the part of `config` that [offset, offset + data.size()) covers.
inline void read_config_bytes(std::span<const uint8_t> config, uint32_t offset,
                              std::span<uint8_t> data) {
  for (size_t i = 0; i < data.size(); ++i) {
    uint64_t at = uint64_t{offset} + i;
    data[i] = at < config.size() ? config[at] : uint8_t{0};
  }
}

}  // namespace virtio
