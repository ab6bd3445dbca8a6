#include "devices/virtio/net.h"

#include <fmt/format.h>
#include <sys/epoll.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>

#include "devices/virtio/chain_io.h"
#include "vmm/base/endian.h"
#include "vmm/base/log.h"

namespace virtio {

using base::fail;
using base::Result;

namespace {

// virtio_net_hdr (virtio 1.2, 5.1.6).
constexpr uint8_t kNeedsChecksum = 1;
constexpr uint8_t kGsoNone = 0;
constexpr uint8_t kGsoTcp4 = 1;
constexpr uint8_t kGsoTcp6 = 4;
constexpr uint16_t kStatusLinkUp = 1;
constexpr uint16_t kStatusAnnounce = 2;

void count(std::atomic<uint64_t>& counter, uint64_t by = 1) {
  counter.fetch_add(by, std::memory_order_relaxed);
}

}  // namespace

Net::Net(std::string name, const MacAddress& mac, std::unique_ptr<NetBackend> backend, uint16_t mtu)
    : name_(std::move(name)), mac_(mac), backend_(std::move(backend)), mtu_(mtu) {}

uint64_t Net::features() const {
  return kNetMac | kNetStatus | kNetMergeableBuffers | kNetControlQueue | kNetGuestAnnounce |
         (mtu_ ? kNetMtu : 0) | backend_->offloads();
}

// struct virtio_net_config (virtio 1.2, 5.1.4), as far as the features offered reach.
void Net::read_config(uint32_t offset, std::span<uint8_t> data) const {
  std::array<uint8_t, 12> config{};
  std::ranges::copy(mac_, config.begin());
  uint16_t status = (link_up_ ? kStatusLinkUp : 0) | (announce_ ? kStatusAnnounce : 0);
  base::store_le(config, 6, status);
  base::store_le<uint16_t>(config, 8, 1);  // queue pairs
  base::store_le<uint16_t>(config, 10, mtu_);
  read_config_bytes(config, offset, data);
}

Result<void> Net::activate(Transport& transport, uint64_t features) {
  transport_ = &transport;
  features_ = features;
  if (!(features & kNetGuestAnnounce)) announce_ = false;
  TRY(backend_->use_offloads(features & backend_->offloads()));
  want_frames_ = transport.has_queue(kReceiveQueue);
  if (!link_up_) return {};
  watched_ = want_frames_ ? EPOLLIN : 0u;
  TRY(transport.watch(backend_->fd(), watched_,
                      [this](uint32_t events) { return on_ready(events); }));
  watching_ = true;
  return {};
}

bool Net::reset() {
  if (watching_) transport_->unwatch(backend_->fd());
  watching_ = false;
  transport_ = nullptr;
  frame_bytes_ = 0;
  want_frames_ = want_room_ = false;
  announce_ = false;
  return true;
}

Result<void> Net::process(uint16_t queue) {
  if (queue == kControlQueue) return control();
  // Without a link frames stay where they are; the driver was told.
  if (!link_up_) return {};
  return queue == kReceiveQueue ? receive() : transmit();
}

Result<void> Net::on_ready(uint32_t events) {
  if (events & EPOLLIN) TRY(receive());
  if (link_up_ && events & EPOLLOUT) TRY(transmit());
  // What came before the hang-up was read first.
  if (link_up_ && events & (EPOLLHUP | EPOLLERR) && !(events & EPOLLIN)) lose_link();
  return {};
}

// What the descriptor should wake us for now.
Result<void> Net::update_watch() {
  if (!link_up_) return {};
  uint32_t wanted = (want_frames_ ? EPOLLIN : 0u) | (want_room_ ? EPOLLOUT : 0u);
  if (wanted == watched_) return {};
  watched_ = wanted;
  return transport_->change_watch(backend_->fd(), wanted);
}

// The other end of the descriptor is gone, for good: to the guest a cable that was pulled.
void Net::lose_link() {
  base::log_error("{}: its network on the host has ended: the guest sees a cable that was pulled",
                  name_);
  link_up_ = watching_ = false;
  transport_->unwatch(backend_->fd());
  transport_->config_changed();
}

Result<void> Net::receive() {
  Virtqueue& queue = transport_->queue(kReceiveQueue);
  TRY(queue.disable_kicks());
  want_frames_ = true;
  for (int frames = 0; frames < kTurnFrames; ++frames) {
    if (frame_bytes_ == 0) {
      Read read = read_frame();
      if (read == Read::kLinkLost) lose_link();
      if (read != Read::kFrame) break;
    }
    TRY_ASSIGN(want_frames_, deliver(queue));
    if (!want_frames_) break;
  }
  TRY(transport_->interrupt(kReceiveQueue));
  return update_watch();
}

Net::Read Net::read_frame() {
  // Without offloads the descriptor has bare frames, and the header is all zeroes.
  size_t start = backend_->offloads() ? 0 : sizeof(Header);
  std::memset(frame_.data(), 0, sizeof(Header));
  ssize_t got = ::read(backend_->fd(), frame_.data() + start, frame_.size() - start);
  if (got > 0) {
    frame_bytes_ = start + static_cast<size_t>(got);
    // The host says "checksum is right" also to a driver that did not ask (virtio 1.2, 5.1.6.4.1).
    if (!(features_ & kNetGuestCsum)) frame_[offsetof(Header, flags)] = std::byte{0};
    return Read::kFrame;
  }
  bool nothing = got < 0 && (errno == EAGAIN || errno == EINTR);
  return nothing ? Read::kNothing : Read::kLinkLost;
}

// Gives the frame to the driver, or drops it where it can never fit. False where it has to wait for
// buffers; the driver then kicks.
Result<bool> Net::deliver(Virtqueue& queue) {
  size_t chains = 0;
  uint64_t room = 0;
  auto put_back = [&] {
    while (chains > 0) {
      queue.unpop();
      --chains;
    }
  };
  bool fits = frame_bytes_ >= sizeof(Header) + kMinFrameBytes && frame_bytes_ < frame_.size();
  while (fits && room < frame_bytes_) {
    if (chains == receive_chains_.size()) receive_chains_.emplace_back();
    DescriptorChain& chain = receive_chains_[chains];
    TRY_ASSIGN(bool popped, queue.pop(chain));
    if (!popped) {
      // Asked for a kick before the chains go back: it is one for more of them that is needed.
      TRY_ASSIGN(bool more, queue.enable_kicks());
      if (more) continue;
      put_back();
      return false;
    }
    ++chains;
    if (chain.writable_bytes() < sizeof(Header)) {
      return fail(fmt::format("receive buffer of {} bytes has no room for the header",
                              chain.writable_bytes()));
    }
    room += chain.writable_bytes();
    size_t most = features_ & kNetMergeableBuffers ? queue.size() : 1;
    fits = room >= frame_bytes_ || chains < most;
  }
  if (fits) {
    TRY(place_frame(queue, chains));
  } else {
    put_back();
    count(counters_.received_dropped);
  }
  frame_bytes_ = 0;
  return true;
}

Result<void> Net::place_frame(Virtqueue& queue, size_t chains) {
  base::store_le(std::span(reinterpret_cast<uint8_t*>(frame_.data()), sizeof(Header)),
                 offsetof(Header, buffers), static_cast<uint16_t>(chains));
  std::span<const std::byte> rest(frame_.data(), frame_bytes_);
  for (const DescriptorChain& chain : std::span(receive_chains_).first(chains)) {
    TRY_ASSIGN(size_t written, write_chain(transport_->memory(), chain, 0, rest));
    TRY(queue.add_used(chain.head, static_cast<uint32_t>(written)));
    rest = rest.subspan(written);
  }
  TRY(queue.publish_used());
  count(counters_.received_frames);
  count(counters_.received_bytes, frame_bytes_ - sizeof(Header));
  return {};
}

Result<void> Net::transmit() {
  Virtqueue& queue = transport_->queue(kTransmitQueue);
  TRY(queue.disable_kicks());
  want_room_ = true;
  // After a full turn the descriptor, as soon as it takes more, brings us back.
  for (int frames = 0; frames < kTurnFrames; ++frames) {
    TRY_ASSIGN(bool popped, queue.pop(transmit_chain_));
    if (!popped) {
      TRY_ASSIGN(bool more, queue.enable_kicks());
      if (!more) {
        want_room_ = false;
        break;
      }
      TRY(queue.disable_kicks());
      continue;
    }
    TRY_ASSIGN(Sent sent, send(transmit_chain_));
    if (sent == Sent::kWouldBlock || sent == Sent::kLinkLost) {
      queue.unpop();
      if (sent == Sent::kLinkLost) lose_link();
      break;
    }
    if (sent == Sent::kDropped) count(counters_.sent_dropped);
    TRY(queue.push(transmit_chain_.head, 0));
  }
  TRY(transport_->interrupt(kTransmitQueue));
  return update_watch();
}

Result<Net::Sent> Net::send(const DescriptorChain& chain) {
  uint64_t bytes = chain.readable_bytes();
  if (bytes < sizeof(Header)) {
    return fail(fmt::format("frame to send of {} bytes has no header", bytes));
  }
  bytes -= sizeof(Header);
  if (bytes < kMinFrameBytes || bytes > kMaxFrameBytes) return Sent::kDropped;

  // The header is checked in a copy, so that the guest cannot change it afterwards.
  Header header;
  TRY(read_chain(transport_->memory(), chain, 0, std::as_writable_bytes(std::span(&header, 1))));
  if (!header_allowed(header)) return Sent::kDropped;
  iovecs_.clear();
  if (backend_->offloads()) iovecs_.push_back({&header, sizeof header});
  TRY(append_iovecs(transport_->memory(), chain.readable, sizeof(Header), bytes, iovecs_));
  if (iovecs_.size() > IOV_MAX) return Sent::kDropped;
  ssize_t sent = ::writev(backend_->fd(), iovecs_.data(), static_cast<int>(iovecs_.size()));
  if (sent >= 0) {
    count(counters_.sent_frames);
    count(counters_.sent_bytes, bytes);
    return Sent::kYes;
  }
  switch (errno) {
    case EAGAIN:
    case EINTR:
      return Sent::kWouldBlock;
    case EPIPE:
    case ECONNRESET:
    case ENOTCONN:
    case EBADFD:
      return Sent::kLinkLost;
    default:  // this frame is not to the host's taste, or the interface is down
      return Sent::kDropped;
  }
}

// Only what was negotiated reaches the host's network stack.
bool Net::header_allowed(const Header& header) const {
  if (header.flags & kNeedsChecksum && !(features_ & kNetCsum)) return false;
  switch (header.gso_type) {
    case kGsoNone:
      return true;
    case kGsoTcp4:
      return features_ & kNetHostTso4;
    case kGsoTcp6:
      return features_ & kNetHostTso6;
    default:
      return false;
  }
}

}  // namespace virtio
