// The driver of a vsock device, by hand: sends packets and takes those of the device.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "devices/virtio/vsock_packet.h"
#include "tests/support/fake_transport.h"

namespace testing_support {

class VsockGuest {
 public:
  struct Packet {
    virtio::VsockHeader header;
    std::string payload;
  };

  VsockGuest(FakeTransport& transport, uint64_t cid) : transport_(transport), cid_(cid) {}

  // Gives the device `count` receive buffers of `size` bytes (64 KiB at most).
  void post(int count, uint32_t size = 4096);
  // Takes the device's next packet and gives its buffer back, without a kick.
  std::optional<Packet> next();

  // A packet of this guest to port `host` of the host, from its port `guest`.
  virtio::VsockHeader header(virtio::VsockOp op, uint32_t host, uint32_t guest) const;
  // Sends it: addresses and lengths are the caller's. The payload is a descriptor of its own.
  void send(const virtio::VsockHeader& header, std::string_view payload = {});
  // The same with the payload's length in the header.
  void write(virtio::VsockHeader header, std::string_view payload);

  uint32_t buf_alloc = 65536;  // what header() grants
  uint32_t fwd_cnt = 0;

 private:
  FakeTransport& transport_;
  uint64_t cid_;
  uint32_t size_ = 0;  // of a receive buffer
  uint16_t posted_ = 0, taken_ = 0, sent_ = 0;
};

}  // namespace testing_support
