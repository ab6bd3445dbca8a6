// A network for a guest without any privilege on the host: libslirp answers ARP and DHCP itself and
// turns the guest's connections into sockets of this process.
//
//   10.0.2.0/24, gateway and host 10.0.2.2, DNS 10.0.2.3, the guest 10.0.2.15 by DHCP; IPv4 only
//
// The stack runs on a thread of its own, which alone touches it between start() and the
// destructor; it exchanges frames with the device over a socket pair. Frames for a guest that
// does not keep up are dropped, as on a wire.
#pragma once

#include <netinet/in.h>
#include <poll.h>

#include <array>
#include <memory>
#include <string_view>
#include <thread>
#include <vector>

#include "devices/virtio/net_backend.h"
#include "devices/virtio/slirp_library.h"
#include "vmm/base/fd.h"

namespace virtio {

// A port of the host that leads to a port of the guest.
struct HostForward {
  bool udp = false;
  in_addr host_address{};  // network byte order
  uint16_t host_port = 0;
  uint16_t guest_port = 0;
};

// "tcp:[HOSTADDR]:HOSTPORT-GUESTPORT", or udp. HOSTADDR is an IPv4 address; without one only this
// host itself can connect (127.0.0.1), 0.0.0.0 opens the port on every interface.
base::Result<HostForward> parse_host_forward(std::string_view text);

class UserNetwork : public NetBackend {
 public:
  struct Options {
    std::vector<HostForward> forwards;
    // No connection from the guest to the host or beyond; forwarded ports work.
    bool restricted = false;
  };

  static base::Result<std::unique_ptr<UserNetwork>> start(const Options& options);
  ~UserNetwork() override;  // stops the thread, closes every connection

  int fd() const override { return device_end_.get(); }

 private:
  UserNetwork(const SlirpLibrary& library, base::EventFd stop)
      : library_(library), stop_(std::move(stop)) {}
  base::Result<void> connect_ends();
  base::Result<void> create_stack(const Options& options);
  base::Result<void> add_forward(const HostForward& forward);
  void loop();
  void take_frames();

  static const SlirpCb kCallbacks;

  SlirpLibrary library_;
  base::EventFd stop_;
  base::Fd device_end_, stack_end_;
  Slirp* slirp_ = nullptr;
  std::vector<pollfd> polled_;
  std::array<uint8_t, 65536> frame_;
  std::thread thread_;
};

}  // namespace virtio
