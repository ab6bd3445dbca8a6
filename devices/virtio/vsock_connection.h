// One stream between a port of the guest and a Unix socket of the host: its state, its credit in
// both directions, and the bytes the host has not taken yet. Owned by Vsock (vsock.h), used under
// the transport's lock.
//
// It never waits and holds at most kVsockBuffer bytes: a guest that sends more than it was granted
// loses the connection. Bytes for the guest stay in the socket until the guest has room for them.
#pragma once

#include <sys/uio.h>

#include <compare>
#include <optional>
#include <vector>

#include "devices/virtio/byte_queue.h"
#include "devices/virtio/virtqueue.h"
#include "devices/virtio/vsock_packet.h"
#include "vmm/base/fd.h"

namespace virtio {

// What each connection grants the guest (buf_alloc), bytes.
inline constexpr uint32_t kVsockBuffer = 256 << 10;

struct VsockPorts {
  uint32_t host = 0;
  uint32_t guest = 0;
  auto operator<=>(const VsockPorts&) const = default;
};

class VsockConnection {
 public:
  enum class Origin { kGuest, kHost };
  // What the owner does with the connection after it saw a packet or an event.
  enum class Verdict {
    kKeep,
    kReset,   // tell the guest, close
    kClose,   // the guest knows: close
    kLinger,  // tell the guest; the host still has bytes to take, close after them
  };

  // kGuest: `socket` is connected to whom the guest asked for, in the `request` that gives the
  // guest's credit. kHost: its client said CONNECT; the guest is asked next.
  VsockConnection(base::Fd socket, VsockPorts ports, Origin origin,
                  const VsockHeader& request = {});

  int fd() const { return socket_.get(); }
  VsockPorts ports() const { return ports_; }

  // A packet of the guest; `header.length` bytes are behind the header in `chain`.
  base::Result<Verdict> receive(const VsockHeader& header, vmm::GuestMemory& memory,
                                const DescriptorChain& chain);
  // The socket's events.
  Verdict host_ready(uint32_t events);

  // Has it something to tell the guest now?
  bool has_packet() const { return state_ != State::kLingering && (pending_ != 0 || can_read()); }
  // The next packet; its bytes are in `chain` behind the place of the header. None where the socket
  // has nothing after all.
  base::Result<std::optional<VsockHeader>> next_packet(vmm::GuestMemory& memory,
                                                       const DescriptorChain& chain);
  // The guest was told that nothing goes either way any more.
  bool finished() const { return told_done_ == kVsockNothing; }

  // Socket events to wait for; none where the socket is not worth watching any more.
  std::optional<uint32_t> events() const;

 private:
  enum class State { kRequested, kEstablished, kLingering };
  enum Pending : unsigned {
    kRequest = 1,
    kResponse = 2,
    kCreditUpdate = 4,
    kCreditRequest = 8,
    kShutdown = 16,
  };

  base::Result<Verdict> receive_data(const VsockHeader& header, vmm::GuestMemory& memory,
                                     const DescriptorChain& chain);
  base::Result<size_t> send_to_host(vmm::GuestMemory& memory, const DescriptorChain& chain,
                                    uint32_t length);
  base::Result<uint32_t> read_from_host(vmm::GuestMemory& memory, const DescriptorChain& chain);
  Verdict receive_shutdown(uint32_t flags);
  Verdict greet();
  bool wants_data() const;
  bool can_read() const;
  uint32_t credit() const;
  void flush();
  void host_deaf();
  void host_ended();
  void host_gone();
  bool hung_up() const;
  void update_credit();
  void request_credit();
  bool take(Pending what);
  VsockHeader packet(VsockOp op);

  base::Fd socket_;
  VsockPorts ports_;
  State state_;
  unsigned pending_ = 0;
  bool announced_;         // the guest knows of this connection
  bool readable_ = false;  // the socket may have bytes, or its end
  bool hung_up_ = false;   // the socket will have no more events
  // kVsockNoReceive, kVsockNoSend: what each side does no more.
  uint32_t guest_done_ = 0;
  uint32_t host_done_ = 0;
  uint32_t told_done_ = 0;  // what the guest knows of host_done_

  // To the guest.
  uint32_t peer_buf_alloc_, peer_fwd_cnt_;
  uint32_t sent_ = 0;  // mod 2^32
  bool credit_requested_ = false;

  // From the guest.
  ByteQueue out_;
  uint32_t fwd_cnt_ = 0;
  uint32_t told_fwd_cnt_ = 0;

  std::vector<iovec> iovecs_;  // of the transfer at hand; kept for its capacity
};

}  // namespace virtio
