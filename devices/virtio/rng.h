// virtio entropy device (virtio 1.2, section 5.4): fills the driver's buffers from the host's
// getrandom(2). Owned by the machine; called by its transport under the transport's lock.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "devices/virtio/device.h"
#include "vmm/base/fd.h"

namespace virtio {

class Rng : public Device {
 public:
  // A request gets this much at most, however large its buffer: the used length tells the driver.
  static constexpr uint32_t kMaxRequestBytes = 64 * 1024;
  // What one turn of the loop gives out before other devices have theirs.
  static constexpr uint32_t kTurnBytes = 256 * 1024;
  static constexpr uint32_t kTurnRequests = 64;

  static base::Result<std::unique_ptr<Rng>> create(std::string name);

  DeviceType type() const override { return DeviceType::kEntropy; }
  std::string_view name() const override { return name_; }
  uint64_t features() const override { return 0; }
  std::vector<uint16_t> queue_sizes() const override { return {256}; }
  void read_config(uint32_t offset, std::span<uint8_t> data) const override {
    read_config_bytes({}, offset, data);
  }
  base::Result<void> activate(Transport& transport, uint64_t features) override;
  base::Result<void> process(uint16_t queue) override;
  bool reset() override;
  // It has no state: a request is answered as soon as it is taken.
  void save(base::Encoder& /*to*/) const override {}
  base::Result<void> restore(base::Decoder& /*from*/) override { return {}; }

  // Bytes given to the guest so far. Any thread.
  uint64_t bytes() const { return bytes_.load(std::memory_order_relaxed); }

 private:
  Rng(std::string name, base::EventFd again) : name_(std::move(name)), again_(std::move(again)) {}
  base::Result<uint32_t> fill(const DescriptorChain& chain);

  std::string name_;
  base::EventFd again_;  // wakes the loop for what a turn left undone
  Transport* transport_ = nullptr;
  DescriptorChain chain_;
  std::atomic<uint64_t> bytes_ = 0;
};

}  // namespace virtio
