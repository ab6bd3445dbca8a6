// virtio console (virtio 1.2, section 5.3) with one port: what the driver writes goes to one
// descriptor of the host, what comes from another goes to the driver. Owned by the machine; called
// by its transport under the transport's lock, on the device's event loop but for activate() and
// reset().
//
// Nothing is lost to a slow reader: output it does not take stays in the driver's queue, input
// without a buffer stays with the host. Once nobody can read any more output is thrown away.
#pragma once

#include <sys/uio.h>

#include <array>
#include <atomic>
#include <memory>
#include <optional>
#include <string>

#include "devices/virtio/device.h"
#include "vmm/base/fd.h"

namespace virtio {

inline constexpr uint64_t kConsoleSize = 1ull << 0;  // feature bit (virtio 1.2, 5.3.3)

class Console : public Device {
 public:
  static constexpr uint16_t kReceiveQueue = 0;
  static constexpr uint16_t kTransmitQueue = 1;
  // What one turn of the loop moves each way before other devices have theirs.
  static constexpr int kTurnRequests = 64;
  static constexpr uint32_t kMaxWriteBytes = 4096;
  static constexpr uint32_t kMaxReadBytes = 4096;

  struct Size {
    uint16_t columns = 0, rows = 0;
  };
  // Since the device was made; may be read from any thread.
  struct Counters {
    std::atomic<uint64_t> input_bytes = 0, output_bytes = 0;
    std::atomic<uint64_t> thrown_away_bytes = 0;  // output after the reader was gone
  };

  // Both descriptors must not block, and are not the same one; without an input none is read.
  static base::Result<std::unique_ptr<Console>> create(std::string name, base::Fd input,
                                                       base::Fd output,
                                                       std::optional<Size> size = std::nullopt);

  DeviceType type() const override { return DeviceType::kConsole; }
  std::string_view name() const override { return name_; }
  uint64_t features() const override { return size_ ? kConsoleSize : 0; }
  std::vector<uint16_t> queue_sizes() const override { return {64, 64}; }
  void read_config(uint32_t offset, std::span<uint8_t> data) const override;
  base::Result<void> activate(Transport& transport, uint64_t features) override;
  base::Result<void> process(uint16_t queue) override;
  bool reset() override;
  void save(base::Encoder& to) const override;
  base::Result<void> restore(base::Decoder& from) override;

  const Counters& counters() const { return counters_; }

 private:
  Console(std::string name, base::Fd input, base::Fd output, base::EventFd again,
          std::optional<Size> size)
      : name_(std::move(name)),
        input_(std::move(input)),
        output_(std::move(output)),
        again_(std::move(again)),
        size_(size) {}

  enum class Input { kSome, kNone, kEnded };

  base::Result<void> receive();
  base::Result<Input> read_into(const DescriptorChain& chain, Virtqueue& queue);
  base::Result<void> watch_input(bool on);
  base::Result<void> transmit();
  base::Result<bool> write_from(const DescriptorChain& chain);
  base::Result<void> watch_output(bool on);

  std::string name_;
  base::Fd input_;  // closed at its end
  base::Fd output_;
  base::EventFd again_;  // wakes the loop for output that a turn left undone
  std::optional<Size> size_;

  Transport* transport_ = nullptr;
  bool watching_input_ = false;
  bool watching_output_ = false;
  bool output_broken_ = false;  // nobody reads any more
  uint64_t written_ = 0;        // bytes of the request at the head of the queue that are out
  DescriptorChain chain_;
  std::vector<iovec> iovecs_;
  Counters counters_;
};

}  // namespace virtio
