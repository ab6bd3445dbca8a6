// What travels in the queues of a vsock device (virtio 1.2, section 5.10.6): a header, and for
// kReadWrite the bytes of the stream behind it. Constants only.
#pragma once

#include <cstdint>

namespace virtio {

inline constexpr uint64_t kVsockHostCid = 2;

struct [[gnu::packed]] VsockHeader {
  uint64_t src_cid = 0;
  uint64_t dst_cid = 0;
  uint32_t src_port = 0;
  uint32_t dst_port = 0;
  uint32_t length = 0;  // bytes behind the header
  uint16_t type = 0;
  uint16_t op = 0;
  uint32_t flags = 0;
  uint32_t buf_alloc = 0;  // the sender's receive buffer, bytes
  uint32_t fwd_cnt = 0;    // bytes the sender took out of it so far, mod 2^32
};
static_assert(sizeof(VsockHeader) == 44);

inline constexpr uint16_t kVsockStream = 1;

enum VsockOp : uint16_t {
  kVsockRequest = 1,
  kVsockResponse = 2,
  kVsockReset = 3,
  kVsockShutdown = 4,
  kVsockReadWrite = 5,
  kVsockCreditUpdate = 6,
  kVsockCreditRequest = 7,
};

// Flags of kVsockShutdown: what its sender will not do any more.
inline constexpr uint32_t kVsockNoReceive = 1;
inline constexpr uint32_t kVsockNoSend = 2;
inline constexpr uint32_t kVsockNothing = kVsockNoReceive | kVsockNoSend;

// The one event of the event queue: connections are gone, the CID may be another.
inline constexpr uint32_t kVsockTransportReset = 0;

}  // namespace virtio
