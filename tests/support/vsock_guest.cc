#include "tests/support/vsock_guest.h"

#include <stdexcept>

namespace testing_support {
namespace {

constexpr uint16_t kSlots = 16;  // of FakeTransport's queues
constexpr vmm::Gpa kReceiveBuffers{0x100000};
constexpr vmm::Gpa kTransmitBuffers{0x200000};
constexpr uint64_t kSlotBytes = 0x10000;

}  // namespace

void VsockGuest::post(int count, uint32_t size) {
  size_ = size;
  for (int i = 0; i < count; ++i) {
    auto slot = static_cast<uint16_t>(posted_++ % kSlots);
    transport_.driver(0).add(slot, {}, {{kReceiveBuffers + slot * kSlotBytes, size}});
  }
}

std::optional<VsockGuest::Packet> VsockGuest::next() {
  DriverQueue& queue = transport_.driver(0);
  if (queue.used_index() == taken_) return std::nullopt;
  auto used = queue.used(taken_++);
  vmm::Gpa from = kReceiveBuffers + used.id * kSlotBytes;
  Packet packet{*transport_.memory().load<virtio::VsockHeader>(from), {}};
  if (used.length != sizeof packet.header + packet.header.length) {
    throw std::logic_error("used length does not agree with the header");
  }
  packet.payload.resize(packet.header.length);
  auto read = transport_.memory().read(from + sizeof packet.header,
                                       std::as_writable_bytes(std::span(packet.payload)));
  if (!read) throw std::logic_error(read.error().text());
  queue.add(static_cast<uint16_t>(used.id), {}, {{from, size_}});
  return packet;
}

virtio::VsockHeader VsockGuest::header(virtio::VsockOp op, uint32_t host, uint32_t guest) const {
  virtio::VsockHeader header;
  header.src_cid = cid_;
  header.dst_cid = virtio::kVsockHostCid;
  header.src_port = guest;
  header.dst_port = host;
  header.type = virtio::kVsockStream;
  header.op = op;
  header.buf_alloc = buf_alloc;
  header.fwd_cnt = fwd_cnt;
  return header;
}

void VsockGuest::send(const virtio::VsockHeader& header, std::string_view payload) {
  auto slot = static_cast<uint16_t>(sent_++ * 2 % kSlots);
  vmm::Gpa at = kTransmitBuffers + slot * kSlotBytes;
  std::vector<virtio::Buffer> buffers = {{at, sizeof header}};
  if (!transport_.memory().store(at, header)) throw std::logic_error("store");
  if (!payload.empty()) {
    if (!transport_.memory().write(at + 64, std::as_bytes(std::span(payload)))) {
      throw std::logic_error("payload is too long");
    }
    buffers.push_back({at + 64, static_cast<uint32_t>(payload.size())});
  }
  transport_.driver(1).add(slot, buffers, {});
  transport_.kick(1);
}

void VsockGuest::write(virtio::VsockHeader header, std::string_view payload) {
  header.length = static_cast<uint32_t>(payload.size());
  send(header, payload);
}

}  // namespace testing_support
