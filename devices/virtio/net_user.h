// A network for a guest without any privilege on the host: libslirp answers ARP and DHCP itself and
// turns the guest's connections into sockets of the host.
//
//   10.0.2.0/24, gateway and host 10.0.2.2, DNS 10.0.2.3, the guest 10.0.2.15 by DHCP; IPv4 only
//
// The stack is a process of its own (devices/slirp/main.cc): what the guest and the internet send
// is parsed outside the machine, which goes on with its cable pulled where the stack ends. They
// exchange frames over a socket pair. Frames for a guest that does not keep up are dropped, as on a
// wire.
#pragma once

#include <netinet/in.h>
#include <sys/types.h>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "devices/virtio/net_backend.h"
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
std::string to_string(const HostForward& forward);  // the same, with an address

class UserNetwork : public NetBackend {
 public:
  struct Options {
    std::vector<HostForward> forwards;
    // No connection from the guest to the host or beyond; forwarded ports work.
    bool restricted = false;
    std::string program;  // of the stack; empty: minivmm-slirp, where this process's program is
  };

  // Returns when the forwarded ports are open.
  static base::Result<std::unique_ptr<UserNetwork>> start(const Options& options);
  ~UserNetwork() override;  // ends the stack: its ports are free again

  int fd() const override { return device_end_.get(); }

 private:
  UserNetwork(base::Fd device_end, pid_t stack)
      : device_end_(std::move(device_end)), stack_(stack) {}

  base::Fd device_end_;
  pid_t stack_;
};

}  // namespace virtio
