#include "devices/virtio/vsock_connection.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

#include "devices/virtio/chain_io.h"

namespace virtio {

using base::Result;
using Verdict = VsockConnection::Verdict;

namespace {

// The most that is on its way to the guest at once, whatever it grants: bounds the work of a turn.
constexpr uint32_t kMaxWindow = 1 << 20;
constexpr uint64_t kMaxPayload = 64 << 10;

}  // namespace

VsockConnection::VsockConnection(base::Fd socket, VsockPorts ports, Origin origin,
                                 const VsockHeader& request)
    : socket_(std::move(socket)),
      ports_(ports),
      state_(origin == Origin::kGuest ? State::kEstablished : State::kRequested),
      pending_(origin == Origin::kGuest ? kResponse : kRequest),
      announced_(origin == Origin::kGuest),
      peer_buf_alloc_(request.buf_alloc),
      peer_fwd_cnt_(request.fwd_cnt) {}

uint32_t VsockConnection::credit() const {
  uint32_t on_the_way = sent_ - peer_fwd_cnt_;
  uint32_t window = std::min(peer_buf_alloc_, kMaxWindow);
  return on_the_way >= window ? 0 : window - on_the_way;
}

bool VsockConnection::wants_data() const {
  return state_ == State::kEstablished && !(host_done_ & kVsockNoSend) &&
         !(guest_done_ & kVsockNoReceive);
}

bool VsockConnection::can_read() const { return wants_data() && readable_ && credit() > 0; }

std::optional<uint32_t> VsockConnection::events() const {
  if (hung_up_) return std::nullopt;
  // EPOLLHUP and EPOLLERR come unasked.
  uint32_t events = 0;
  if (wants_data() && !readable_) events |= EPOLLIN;
  if (!out_.empty()) events |= EPOLLOUT;
  return events;
}

Result<Verdict> VsockConnection::receive(const VsockHeader& header, vmm::GuestMemory& memory,
                                         const DescriptorChain& chain) {
  if (header.op == kVsockReset) return Verdict::kClose;
  peer_buf_alloc_ = header.buf_alloc;
  peer_fwd_cnt_ = header.fwd_cnt;
  if (credit() > 0) credit_requested_ = false;
  if (state_ == State::kRequested) {
    return header.op == kVsockResponse && announced_ ? greet() : Verdict::kReset;
  }
  switch (header.op) {
    case kVsockReadWrite:
      return receive_data(header, memory, chain);
    case kVsockShutdown:
      return receive_shutdown(header.flags);
    case kVsockCreditUpdate:
      return Verdict::kKeep;
    case kVsockCreditRequest:
      pending_ |= kCreditUpdate;
      return Verdict::kKeep;
  }
  return Verdict::kReset;
}

// The client learns that the guest took its connection.
Verdict VsockConnection::greet() {
  std::string line = fmt::format("OK {}\n", ports_.host);
  ssize_t n = ::send(fd(), line.data(), line.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
  if (n != static_cast<ssize_t>(line.size())) return Verdict::kReset;  // the client is gone
  state_ = State::kEstablished;
  return Verdict::kKeep;
}

Result<Verdict> VsockConnection::receive_data(const VsockHeader& header, vmm::GuestMemory& memory,
                                              const DescriptorChain& chain) {
  if (guest_done_ & kVsockNoSend) return Verdict::kReset;
  if (header.length > kVsockBuffer - out_.size()) return Verdict::kReset;  // over its credit
  size_t sent = 0;
  if (out_.empty() && !(host_done_ & kVsockNoReceive)) {
    TRY_ASSIGN(sent, send_to_host(memory, chain, header.length));
  }
  if (host_done_ & kVsockNoReceive) {
    sent = header.length;  // nobody reads it
  } else if (sent < header.length) {
    TRY(read_chain(memory, chain, sizeof header + sent, out_.extend(header.length - sent)));
  }
  fwd_cnt_ += static_cast<uint32_t>(sent);
  update_credit();
  return Verdict::kKeep;
}

// Straight from guest memory, without a copy of ours; returns how much the socket took.
Result<size_t> VsockConnection::send_to_host(vmm::GuestMemory& memory, const DescriptorChain& chain,
                                             uint32_t length) {
  iovecs_.clear();
  TRY(append_iovecs(memory, chain.readable, sizeof(VsockHeader), length, iovecs_));
  msghdr message{};
  message.msg_iov = iovecs_.data();
  message.msg_iovlen = iovecs_.size();
  ssize_t n = ::sendmsg(fd(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (n >= 0) return static_cast<size_t>(n);
  if (errno != EAGAIN && errno != EINTR) host_deaf();
  return 0;
}

void VsockConnection::flush() {
  while (!out_.empty()) {
    auto bytes = out_.front();
    ssize_t n = ::send(fd(), bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0) {
      if (errno == EINTR) continue;
      if (errno != EAGAIN) host_deaf();
      break;
    }
    out_.consume(static_cast<size_t>(n));
    fwd_cnt_ += static_cast<uint32_t>(n);
  }
  if (out_.empty() && (guest_done_ & kVsockNoSend)) ::shutdown(fd(), SHUT_WR);
  update_credit();
}

// The guest is told of room it does not know of before it runs out.
void VsockConnection::update_credit() {
  auto received = static_cast<uint32_t>(fwd_cnt_ + out_.size());
  uint32_t taken_of_known_room = received - told_fwd_cnt_;
  if (fwd_cnt_ != told_fwd_cnt_ && taken_of_known_room > kVsockBuffer / 2) {
    pending_ |= kCreditUpdate;
  }
}

// Once each time the guest's room is used up: an answer that grants nothing is not asked again.
void VsockConnection::request_credit() {
  if (!wants_data() || !readable_ || credit() > 0 || credit_requested_) return;
  credit_requested_ = true;
  pending_ |= kCreditRequest;
}

Verdict VsockConnection::receive_shutdown(uint32_t flags) {
  guest_done_ |= flags & kVsockNothing;
  if (guest_done_ == kVsockNothing) {
    // The guest waits for the reset only; what it sent is ours to bring to the host.
    if (out_.empty()) return Verdict::kReset;
    ::shutdown(fd(), SHUT_RD);
    state_ = State::kLingering;
    return Verdict::kLinger;
  }
  if (guest_done_ & kVsockNoReceive) ::shutdown(fd(), SHUT_RD);
  if ((guest_done_ & kVsockNoSend) && out_.empty()) ::shutdown(fd(), SHUT_WR);
  return Verdict::kKeep;
}

Verdict VsockConnection::host_ready(uint32_t events) {
  if (events & EPOLLOUT) flush();
  if (events & EPOLLIN) readable_ = true;
  // Asked anew: the event may be of the descriptor's former owner.
  if ((events & (EPOLLHUP | EPOLLERR)) && hung_up()) host_gone();
  if (state_ == State::kLingering) return out_.empty() ? Verdict::kClose : Verdict::kKeep;
  if (state_ == State::kRequested && hung_up_) {
    return announced_ ? Verdict::kReset : Verdict::kClose;
  }
  request_credit();
  return Verdict::kKeep;
}

bool VsockConnection::hung_up() const {
  pollfd entry{fd(), 0, 0};
  return ::poll(&entry, 1, 0) > 0 && (entry.revents & (POLLHUP | POLLERR));
}

// The host takes no more: what it has not taken yet is dropped.
void VsockConnection::host_deaf() {
  host_done_ |= kVsockNoReceive;
  pending_ |= kShutdown;
  fwd_cnt_ += static_cast<uint32_t>(out_.size());
  out_.clear();
}

void VsockConnection::host_ended() {
  readable_ = false;
  host_done_ |= kVsockNoSend;
  pending_ |= kShutdown;
  if (hung_up()) host_gone();
}

// Nobody is at the other end. What it sent before is read still, but by a guest that has said it
// does not want it.
void VsockConnection::host_gone() {
  hung_up_ = true;
  readable_ = true;
  host_deaf();
  if (guest_done_ & kVsockNoReceive) host_done_ |= kVsockNoSend;
}

bool VsockConnection::take(Pending what) {
  bool was = pending_ & what;
  pending_ &= ~what;
  return was;
}

Result<std::optional<VsockHeader>> VsockConnection::next_packet(vmm::GuestMemory& memory,
                                                                const DescriptorChain& chain) {
  if (take(kRequest)) {
    announced_ = true;
    return packet(kVsockRequest);
  }
  if (take(kResponse)) return packet(kVsockResponse);
  if (take(kCreditRequest)) return packet(kVsockCreditRequest);
  if (take(kCreditUpdate)) return packet(kVsockCreditUpdate);
  if (can_read()) {
    TRY_ASSIGN(uint32_t length, read_from_host(memory, chain));
    if (length > 0) {
      sent_ += length;
      request_credit();
      VsockHeader header = packet(kVsockReadWrite);
      header.length = length;
      return header;
    }
  }
  if (take(kShutdown)) {
    VsockHeader header = packet(kVsockShutdown);
    header.flags = host_done_;
    told_done_ = host_done_;
    return header;
  }
  return std::nullopt;
}

// Straight into guest memory; 0 where there is nothing now, or never again.
Result<uint32_t> VsockConnection::read_from_host(vmm::GuestMemory& memory,
                                                 const DescriptorChain& chain) {
  uint64_t room =
      std::min({chain.writable_bytes() - sizeof(VsockHeader), uint64_t{credit()}, kMaxPayload});
  if (room == 0) return base::fail("vsock receive buffer has room for a header only");
  iovecs_.clear();
  TRY(append_iovecs(memory, chain.writable, sizeof(VsockHeader), room, iovecs_));
  ssize_t n;
  while ((n = ::readv(fd(), iovecs_.data(), static_cast<int>(iovecs_.size()))) < 0 &&
         errno == EINTR) {
  }
  if (n > 0) {
    mark_dirty(memory, chain.writable, sizeof(VsockHeader) + static_cast<uint64_t>(n));
    return static_cast<uint32_t>(n);
  }
  if (n < 0 && errno == EAGAIN) {
    readable_ = false;
  } else {
    host_ended();  // a reset of the host's side ends it as well
  }
  return 0;
}

VsockHeader VsockConnection::packet(VsockOp op) {
  pending_ &= ~kCreditUpdate;  // every packet is one
  told_fwd_cnt_ = fwd_cnt_;
  VsockHeader header;
  header.src_cid = kVsockHostCid;
  header.src_port = ports_.host;
  header.dst_port = ports_.guest;
  header.type = kVsockStream;
  header.op = op;
  header.buf_alloc = kVsockBuffer;
  header.fwd_cnt = fwd_cnt_;
  return header;
}

}  // namespace virtio
