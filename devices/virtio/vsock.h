// virtio socket device (virtio 1.2, section 5.10): stream sockets between programs in the guest and
// programs on the host, which see Unix sockets, as with Firecracker:
//  - a host program connects to PATH, says "CONNECT <port>\n", and reads "OK <host port>\n" once
//    the guest has accepted;
//  - a guest program that connects to CID 2, port P reaches whoever listens on PATH_P.
//
// Owned by the machine; called by its transport under the transport's lock. Bounded whatever the
// guest and the host's programs do: kMaxConnections, kVsockBuffer bytes each, kMaxResets answers to
// packets of no connection, after which the guest's packets wait until it takes the answers.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>

#include "devices/virtio/device.h"
#include "devices/virtio/vsock_connection.h"
#include "devices/virtio/vsock_handshake.h"
#include "vmm/base/unix_socket.h"

namespace virtio {

class Vsock : public Device {
 public:
  static constexpr size_t kMaxConnections = 1023;  // clients that have not said CONNECT count
  static constexpr size_t kMaxResets = 256;
  enum Queue : uint16_t { kReceive = 0, kTransmit = 1, kEvent = 2 };

  // `guest_cid` is 3 or more and fits in 32 bits; `path` is where host programs connect.
  static base::Result<std::unique_ptr<Vsock>> create(std::string name, uint64_t guest_cid,
                                                     const std::string& path);

  // Connections do not survive a restore: all are closed here, and the guest is told so, which then
  // closes its own ends and reads the CID again. With the transport's lock held; before activate()
  // the guest is told as soon as the device is activated.
  base::Result<void> send_transport_reset();

  DeviceType type() const override { return DeviceType::kVsock; }
  std::string_view name() const override { return name_; }
  uint64_t features() const override;
  std::vector<uint16_t> queue_sizes() const override { return {256, 256, 16}; }
  void read_config(uint32_t offset, std::span<uint8_t> data) const override;
  base::Result<void> activate(Transport& transport, uint64_t features) override;
  base::Result<void> process(uint16_t queue) override;
  bool reset() override;
  void save(base::Encoder& to) const override;
  base::Result<void> restore(base::Decoder& from) override;

  uint64_t guest_cid() const { return guest_cid_; }
  size_t connections() const { return connections_.size() + handshakes_.size(); }

 private:
  struct Entry {
    VsockConnection connection;
    std::optional<uint32_t> watched;  // events, where the socket is watched
    bool queued = false;              // in ready_
  };

  Vsock(std::string name, uint64_t guest_cid, base::UnixListener listener, base::EventFd again);

  base::Result<void> go_on();
  base::Result<void> transmit();
  base::Result<void> receive_packet(const DescriptorChain& chain);
  base::Result<void> connect_to_host(const VsockHeader& request);
  void refuse(const VsockHeader& packet);
  base::Result<void> fill();
  base::Result<uint32_t> put_packet(const DescriptorChain& chain);
  base::Result<uint32_t> put_header(const DescriptorChain& chain, VsockHeader header);
  base::Result<void> put_event();

  base::Result<void> accept();
  base::Result<void> shake_hands(int fd);
  base::Result<void> host_ready(int fd, uint32_t events);

  bool full() const { return connections() >= kMaxConnections; }
  uint32_t free_host_port();
  base::Result<void> add(VsockConnection connection);
  base::Result<void> settle(Entry& entry, VsockConnection::Verdict verdict);
  base::Result<void> update_watch(Entry& entry);
  void unqueue(Entry& entry);
  void forget(Entry& entry);
  void close_all();

  std::string name_;
  uint64_t guest_cid_;
  base::UnixListener listener_;
  base::EventFd again_;  // wakes the loop for what a turn left undone
  Transport* transport_ = nullptr;

  std::unordered_map<int, VsockHandshake> handshakes_;  // by descriptor
  std::unordered_map<int, Entry> connections_;          // by descriptor, lingering ones too
  std::map<VsockPorts, Entry*> by_ports_;               // those the guest can name
  std::deque<Entry*> ready_;                            // have a packet for the guest
  std::deque<VsockHeader> resets_;                      // answers of no connection, before ready_
  uint32_t next_host_port_;
  bool transmit_waits_ = false;  // until resets_ is shorter
  bool transport_reset_pending_ = false;
  DescriptorChain chain_;
};

}  // namespace virtio
