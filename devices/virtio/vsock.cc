#include "devices/virtio/vsock.h"

#include <fmt/format.h>
#include <sys/epoll.h>

#include <algorithm>
#include <array>

#include "devices/virtio/chain_io.h"
#include "vmm/base/endian.h"

namespace virtio {

using base::Result;
using Verdict = VsockConnection::Verdict;

namespace {

constexpr uint64_t kFeatureStream = 1 << 0;
// Ports given to the host's ends of connections that the host began.
constexpr uint32_t kFirstHostPort = 1u << 30;
constexpr uint32_t kLastHostPort = (1u << 31) - 1;
// What one turn of the loop takes from the guest before other devices have theirs.
constexpr int kTurnPackets = 256;
constexpr int kTurnClients = 16;
constexpr size_t kPortDigits = 11;  // "_4294967295"

}  // namespace

Result<std::unique_ptr<Vsock>> Vsock::create(std::string name, uint64_t guest_cid,
                                             const std::string& path) {
  if (guest_cid <= kVsockHostCid || guest_cid >= UINT32_MAX) {
    return base::fail(fmt::format("vsock CID {}: choose one from 3 to 4294967294", guest_cid));
  }
  if (path.size() + kPortDigits > base::kMaxUnixPath) {
    return base::fail(fmt::format("vsock path {}: choose one of at most {} characters", path,
                                  base::kMaxUnixPath - kPortDigits));
  }
  TRY_ASSIGN(base::UnixListener listener, base::UnixListener::create(path));
  TRY_ASSIGN(base::EventFd again, base::EventFd::create());
  return std::unique_ptr<Vsock>(
      new Vsock(std::move(name), guest_cid, std::move(listener), std::move(again)));
}

Vsock::Vsock(std::string name, uint64_t guest_cid, base::UnixListener listener, base::EventFd again)
    : name_(std::move(name)),
      guest_cid_(guest_cid),
      listener_(std::move(listener)),
      again_(std::move(again)),
      next_host_port_(kFirstHostPort) {}

uint64_t Vsock::features() const { return kFeatureStream; }

void Vsock::read_config(uint32_t offset, std::span<uint8_t> data) const {
  std::array<uint8_t, 8> config;
  base::store_le(config, 0, guest_cid_);
  read_config_bytes(config, offset, data);
}

Result<void> Vsock::activate(Transport& transport, uint64_t) {
  transport_ = &transport;
  for (uint16_t queue : {kReceive, kTransmit, kEvent}) {
    if (!transport.has_queue(queue)) {
      return base::fail(fmt::format("vsock driver without queue {}", queue));
    }
  }
  TRY(transport.watch(again_.fd(), EPOLLIN, [this](uint32_t) { return go_on(); }));
  if (transport_reset_pending_) again_.signal();
  // Clients that came before the driver wait in the listener's queue.
  return transport.watch(listener_.fd(), EPOLLIN, [this](uint32_t) { return accept(); });
}

Result<void> Vsock::go_on() {
  again_.consume();
  TRY(put_event());
  return transmit();
}

bool Vsock::reset() {
  close_all();
  transport_->unwatch(listener_.fd());
  transport_->unwatch(again_.fd());
  again_.consume();
  transmit_waits_ = false;
  transport_reset_pending_ = false;  // a driver that begins anew has no connections
  transport_ = nullptr;
  return true;
}

void Vsock::close_all() {
  for (auto& [fd, handshake] : handshakes_) transport_->unwatch(fd);
  for (auto& [fd, entry] : connections_) {
    if (entry.watched) transport_->unwatch(fd);
  }
  ready_.clear();
  resets_.clear();
  by_ports_.clear();
  connections_.clear();
  handshakes_.clear();
}

// Connections end with the machine that has their sockets. The CID is not saved: a driver that is
// told of the reset reads it again. Ports are not used twice, so that nothing of before is taken
// for something new.
void Vsock::save(base::Encoder& to) const { to.u32(next_host_port_); }

Result<void> Vsock::restore(base::Decoder& from) {
  next_host_port_ = from.u32();
  if (next_host_port_ < kFirstHostPort || next_host_port_ > kLastHostPort) {
    return base::fail(fmt::format("host port {} is none this device gives out", next_host_port_));
  }
  return send_transport_reset();
}

Result<void> Vsock::process(uint16_t queue) {
  switch (queue) {
    case kReceive:
      TRY(fill());
      return transmit_waits_ ? transmit() : Result<void>();
    case kTransmit:
      return transmit();
    default:
      return put_event();
  }
}

Result<void> Vsock::send_transport_reset() {
  transport_reset_pending_ = true;
  if (transport_ == nullptr) return {};
  close_all();
  return put_event();
}

Result<void> Vsock::put_event() {
  if (!transport_reset_pending_) return {};
  Virtqueue& queue = transport_->queue(kEvent);
  bool popped = false;
  do {
    TRY_ASSIGN(popped, queue.pop(chain_));
    if (popped) break;
    TRY_ASSIGN(bool more, queue.enable_kicks());
    if (!more) return {};  // the driver's next buffer kicks us
  } while (true);
  uint32_t event = kVsockTransportReset;
  TRY_ASSIGN(size_t written,
             write_chain(transport_->memory(), chain_, 0, std::as_bytes(std::span(&event, 1))));
  if (written != sizeof event) return base::fail("vsock event buffer is too small");
  TRY(queue.push(chain_.head, sizeof event));
  transport_reset_pending_ = false;
  return transport_->interrupt(kEvent);
}

// From the guest.

Result<void> Vsock::transmit() {
  Virtqueue& queue = transport_->queue(kTransmit);
  transmit_waits_ = false;
  TRY(queue.disable_kicks());
  for (int packets = 0;; ++packets) {
    if (resets_.size() >= kMaxResets) {
      transmit_waits_ = true;
      break;
    }
    if (packets == kTurnPackets) {
      again_.signal();
      break;
    }
    TRY_ASSIGN(bool popped, queue.pop(chain_));
    if (!popped) {
      TRY_ASSIGN(bool more, queue.enable_kicks());
      if (!more) break;
      TRY(queue.disable_kicks());
      continue;
    }
    TRY(receive_packet(chain_));
    TRY(queue.push(chain_.head, 0));
  }
  TRY(transport_->interrupt(kTransmit));
  return fill();
}

Result<void> Vsock::receive_packet(const DescriptorChain& chain) {
  VsockHeader header;
  TRY_ASSIGN(size_t got, read_chain(transport_->memory(), chain, 0,
                                    std::as_writable_bytes(std::span(&header, 1))));
  if (got != sizeof header) return base::fail("vsock packet without a whole header");
  bool addressed = header.src_cid == guest_cid_ && header.dst_cid == kVsockHostCid &&
                   header.type == kVsockStream;
  if (!addressed) {
    refuse(header);
    return {};
  }
  auto found = by_ports_.find({header.dst_port, header.src_port});
  if (found == by_ports_.end()) {
    if (header.op == kVsockRequest) return connect_to_host(header);
    refuse(header);
    return {};
  }
  Entry& entry = *found->second;
  if (header.length > chain.readable_bytes() - sizeof header) return settle(entry, Verdict::kReset);
  TRY_ASSIGN(Verdict verdict, entry.connection.receive(header, transport_->memory(), chain));
  return settle(entry, verdict);
}

Result<void> Vsock::connect_to_host(const VsockHeader& request) {
  if (!full()) {
    auto socket = base::connect_unix(fmt::format("{}_{}", listener_.path(), request.dst_port));
    if (socket) {
      return add(VsockConnection(std::move(*socket), {request.dst_port, request.src_port},
                                 VsockConnection::Origin::kGuest, request));
    }
  }
  refuse(request);
  return {};
}

// Answers a packet that belongs to no connection.
void Vsock::refuse(const VsockHeader& packet) {
  if (packet.op == kVsockReset) return;
  VsockHeader answer;
  answer.src_cid = packet.dst_cid;
  answer.src_port = packet.dst_port;
  answer.dst_port = packet.src_port;
  answer.type = packet.type;
  answer.op = kVsockReset;
  resets_.push_back(answer);
}

// To the guest.

Result<void> Vsock::fill() {
  Virtqueue& queue = transport_->queue(kReceive);
  while (!resets_.empty() || !ready_.empty()) {
    TRY_ASSIGN(bool popped, queue.pop(chain_));
    if (!popped) {
      TRY_ASSIGN(bool more, queue.enable_kicks());
      if (!more) break;  // the driver's next buffer kicks us
      continue;
    }
    if (chain_.writable_bytes() < sizeof(VsockHeader)) {
      return base::fail("vsock receive buffer has no room for a header");
    }
    TRY_ASSIGN(uint32_t written, put_packet(chain_));
    if (written > 0) {
      TRY(queue.push(chain_.head, written));
    } else {
      queue.unpop();
    }
  }
  return transport_->interrupt(kReceive);
}

// Writes one packet; returns its length, 0 where the connection that was asked had none after all.
// Connections take turns, one packet each.
Result<uint32_t> Vsock::put_packet(const DescriptorChain& chain) {
  if (!resets_.empty()) {
    TRY_ASSIGN(uint32_t written, put_header(chain, resets_.front()));
    resets_.pop_front();
    return written;
  }
  Entry& entry = *ready_.front();
  ready_.pop_front();
  entry.queued = false;
  TRY_ASSIGN(auto packet, entry.connection.next_packet(transport_->memory(), chain));
  uint32_t written = 0;
  if (packet) {
    TRY_ASSIGN(written, put_header(chain, *packet));
  }
  // One that is finished is known to the guest as such: no reset.
  TRY(settle(entry, entry.connection.finished() ? Verdict::kClose : Verdict::kKeep));
  return written;
}

Result<uint32_t> Vsock::put_header(const DescriptorChain& chain, VsockHeader header) {
  header.dst_cid = guest_cid_;
  TRY(write_chain(transport_->memory(), chain, 0, std::as_bytes(std::span(&header, 1))));
  return static_cast<uint32_t>(sizeof header + header.length);
}

// From the host.

Result<void> Vsock::accept() {
  for (int clients = 0; clients < kTurnClients; ++clients) {
    auto client = listener_.accept();
    if (!client) return {};  // none waits, or it was turned away
    if (full()) continue;    // closed: a client that hears nothing would wait for ever
    int fd = client->get();
    TRY(transport_->watch(fd, EPOLLIN, [this, fd](uint32_t) { return shake_hands(fd); }));
    handshakes_.emplace(fd, VsockHandshake(std::move(*client)));
  }
  return {};
}

Result<void> Vsock::shake_hands(int fd) {
  auto found = handshakes_.find(fd);
  if (found == handshakes_.end()) return {};
  auto state = found->second.read();
  if (state == VsockHandshake::State::kIncomplete) return {};
  transport_->unwatch(fd);
  VsockHandshake handshake = std::move(found->second);
  handshakes_.erase(found);
  if (state == VsockHandshake::State::kRefused) return {};
  TRY(add(VsockConnection(handshake.take_socket(), {free_host_port(), handshake.port()},
                          VsockConnection::Origin::kHost)));
  return fill();
}

Result<void> Vsock::host_ready(int fd, uint32_t events) {
  auto found = connections_.find(fd);
  if (found == connections_.end()) return {};
  TRY(settle(found->second, found->second.connection.host_ready(events)));
  return fill();
}

// The table of connections.

uint32_t Vsock::free_host_port() {
  // Of at most kMaxConnections, so that it ends soon.
  auto taken = [this](uint32_t port) {
    auto next = by_ports_.lower_bound({port, 0});
    return next != by_ports_.end() && next->first.host == port;
  };
  uint32_t port;
  do {
    port = next_host_port_;
    next_host_port_ = port == kLastHostPort ? kFirstHostPort : port + 1;
  } while (taken(port));
  return port;
}

Result<void> Vsock::add(VsockConnection connection) {
  int fd = connection.fd();
  auto [place, added] = connections_.emplace(fd, Entry{std::move(connection), std::nullopt, false});
  by_ports_[place->second.connection.ports()] = &place->second;
  return settle(place->second, Verdict::kKeep);
}

// Brings watch and queue of a connection into line with its state, or ends it.
Result<void> Vsock::settle(Entry& entry, Verdict verdict) {
  VsockConnection& connection = entry.connection;
  if (verdict == Verdict::kReset || verdict == Verdict::kLinger) {
    VsockHeader packet;  // as the guest would have sent it
    packet.dst_cid = kVsockHostCid;
    packet.dst_port = connection.ports().host;
    packet.src_port = connection.ports().guest;
    packet.type = kVsockStream;
    refuse(packet);
  }
  if (verdict == Verdict::kReset || verdict == Verdict::kClose) {
    forget(entry);
    return {};
  }
  if (verdict == Verdict::kLinger) {
    by_ports_.erase(connection.ports());
    unqueue(entry);
  }
  if (connection.has_packet() && !entry.queued) {
    entry.queued = true;
    ready_.push_back(&entry);
  }
  return update_watch(entry);
}

Result<void> Vsock::update_watch(Entry& entry) {
  int fd = entry.connection.fd();
  auto wanted = entry.connection.events();
  if (wanted == entry.watched) return {};
  if (!wanted) {
    transport_->unwatch(fd);
  } else if (entry.watched) {
    TRY(transport_->change_watch(fd, *wanted));
  } else {
    TRY(transport_->watch(fd, *wanted,
                          [this, fd](uint32_t events) { return host_ready(fd, events); }));
  }
  entry.watched = wanted;
  return {};
}

void Vsock::unqueue(Entry& entry) {
  if (entry.queued) std::erase(ready_, &entry);
  entry.queued = false;
}

void Vsock::forget(Entry& entry) {
  int fd = entry.connection.fd();
  if (entry.watched) transport_->unwatch(fd);
  unqueue(entry);
  auto named = by_ports_.find(entry.connection.ports());
  // A lingering connection gave its ports up; another one may have them.
  if (named != by_ports_.end() && named->second == &entry) by_ports_.erase(named);
  connections_.erase(fd);
}

}  // namespace virtio
