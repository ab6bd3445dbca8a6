// virtio network device (virtio 1.2, section 5.1): one receive and one transmit queue, frames
// carried by a NetBackend, and a control queue on which a restored guest says that it has announced
// itself to its new network. Owned by the machine; called by its transport under the transport's
// lock, on the device's event loop but for activate() and reset().
//
// A frame from the host is read into a buffer of the device's own, because its size is not known
// before: one that does not fit the buffers there are is kept until the driver adds some. Frames
// from the guest leave its memory directly. When the descriptor takes no more, the rest waits in
// the queue.
#pragma once

#include <sys/uio.h>

#include <array>
#include <atomic>
#include <memory>
#include <string>

#include "devices/virtio/device.h"
#include "devices/virtio/mac_address.h"
#include "devices/virtio/net_backend.h"

namespace virtio {

// Feature bits (virtio 1.2, 5.1.3).
inline constexpr uint64_t kNetCsum = 1ull << 0;
inline constexpr uint64_t kNetGuestCsum = 1ull << 1;
inline constexpr uint64_t kNetMtu = 1ull << 3;
inline constexpr uint64_t kNetMac = 1ull << 5;
inline constexpr uint64_t kNetGuestTso4 = 1ull << 7;
inline constexpr uint64_t kNetGuestTso6 = 1ull << 8;
inline constexpr uint64_t kNetHostTso4 = 1ull << 11;
inline constexpr uint64_t kNetHostTso6 = 1ull << 12;
inline constexpr uint64_t kNetMergeableBuffers = 1ull << 15;
inline constexpr uint64_t kNetStatus = 1ull << 16;
inline constexpr uint64_t kNetControlQueue = 1ull << 17;
inline constexpr uint64_t kNetGuestAnnounce = 1ull << 21;

class Net : public Device {
 public:
  static constexpr uint16_t kReceiveQueue = 0;
  static constexpr uint16_t kTransmitQueue = 1;
  static constexpr uint16_t kControlQueue = 2;
  // Ethernet header, VLAN tag and the largest IP packet: segmentation offload hands it over whole.
  static constexpr uint32_t kMaxFrameBytes = 14 + 4 + 65536;
  static constexpr uint32_t kMinFrameBytes = 14;
  // Frames each way that one turn of the loop moves before other devices have theirs.
  static constexpr int kTurnFrames = 64;

  // Since the device was made; may be read from any thread. Bytes are those of frames alone.
  struct Counters {
    std::atomic<uint64_t> received_frames = 0, received_bytes = 0, received_dropped = 0;
    std::atomic<uint64_t> sent_frames = 0, sent_bytes = 0, sent_dropped = 0;
  };

  // `mtu` in bytes is told to the driver, 0: it takes its own default (1500).
  Net(std::string name, const MacAddress& mac, std::unique_ptr<NetBackend> backend,
      uint16_t mtu = 0);

  DeviceType type() const override { return DeviceType::kNet; }
  std::string_view name() const override { return name_; }
  uint64_t features() const override;
  std::vector<uint16_t> queue_sizes() const override { return {256, 256, 64}; }
  void read_config(uint32_t offset, std::span<uint8_t> data) const override;
  base::Result<void> activate(Transport& transport, uint64_t features) override;
  base::Result<void> process(uint16_t queue) override;
  bool reset() override;
  void save(base::Encoder& to) const override;
  base::Result<void> restore(base::Decoder& from) override;

  const Counters& counters() const { return counters_; }

 private:
  // virtio_net_hdr (virtio 1.2, 5.1.6): the same in both directions.
  struct Header {
    uint8_t flags = 0;
    uint8_t gso_type = 0;
    uint16_t header_length = 0;
    uint16_t gso_size = 0;
    uint16_t checksum_start = 0;
    uint16_t checksum_offset = 0;
    uint16_t buffers = 0;
  };
  static_assert(sizeof(Header) == 12);

  enum class Sent { kYes, kDropped, kWouldBlock, kLinkLost };
  enum class Read { kFrame, kNothing, kLinkLost };

  base::Result<void> on_ready(uint32_t events);
  base::Result<void> receive();
  Read read_frame();
  base::Result<bool> deliver(Virtqueue& queue);
  base::Result<void> place_frame(Virtqueue& queue, size_t chains);
  base::Result<void> transmit();
  base::Result<Sent> send(const DescriptorChain& chain);
  base::Result<void> control();
  base::Result<void> obey(const DescriptorChain& chain);
  bool header_allowed(const Header& header) const;
  base::Result<void> update_watch();
  void lose_link();

  std::string name_;
  MacAddress mac_;
  std::unique_ptr<NetBackend> backend_;
  uint16_t mtu_;
  bool link_up_ = true;
  bool announce_ = false;  // the driver is to say where it is now, and has not done so

  Transport* transport_ = nullptr;
  uint64_t features_ = 0;
  bool watching_ = false;
  uint32_t watched_ = 0;      // events the loop waits for
  bool want_frames_ = false;  // the driver has buffers, or nothing is known to the contrary
  bool want_room_ = false;    // frames of the guest wait until the descriptor takes more

  // The frame being received, header in front; empty where frame_bytes_ is 0. One byte more than
  // the largest shows a frame that is larger still.
  std::array<std::byte, sizeof(Header) + kMaxFrameBytes + 1> frame_;
  size_t frame_bytes_ = 0;
  std::vector<DescriptorChain> receive_chains_;  // reused from frame to frame
  DescriptorChain transmit_chain_;
  DescriptorChain control_chain_;
  std::vector<iovec> iovecs_;

  Counters counters_;
};

}  // namespace virtio
