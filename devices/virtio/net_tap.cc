#include "devices/virtio/net_tap.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sys/ioctl.h>

#include <cerrno>
#include <cstring>

#include "devices/virtio/net.h"

namespace virtio {

using base::fail;
using base::Result;

namespace {

constexpr int kHeaderBytes = 12;  // virtio_net_hdr of virtio 1.x

std::string how_to_create(const std::string& name) {
  return fmt::format("as root: ip tuntap add dev {} mode tap user USER; ip link set {} up", name,
                     name);
}

Result<base::Fd> open_tun_device() {
  auto fd = base::open_file("/dev/net/tun", O_RDWR | O_NONBLOCK);
  if (fd) return fd;
  switch (fd.error().os_error()) {
    case ENOENT:
    case ENODEV:
      return std::unexpected(fd.error().with("tap (is the module loaded? as root: modprobe tun)"));
    case EACCES:
    case EPERM:
      return std::unexpected(fd.error().with("tap (as root: chmod 666 /dev/net/tun)"));
    default:
      return std::unexpected(fd.error().with("tap"));
  }
}

base::Error explain_attach(const std::string& name, int os_error) {
  switch (os_error) {
    case EBUSY:
      return base::Error(fmt::format("tap {} is in use by another program", name), os_error);
    case EPERM:
      return base::Error(
          fmt::format("tap {} was not made for this user ({})", name, how_to_create(name)),
          os_error);
    case EINVAL:
      return base::Error(fmt::format("interface {} is no tap with a single queue", name), os_error);
    default:
      return base::Error(fmt::format("attach to tap {}", name), os_error);
  }
}

}  // namespace

Result<std::unique_ptr<Tap>> Tap::open(const std::string& name) {
  if (name.empty() || name.size() >= IFNAMSIZ) {
    return fail(fmt::format("tap '{}': a name has 1 to {} characters", name, IFNAMSIZ - 1));
  }
  TRY_ASSIGN(base::Fd fd, open_tun_device());
  // Otherwise a mistyped name would make a new interface, where we may.
  if (::if_nametoindex(name.c_str()) == 0) {
    return fail(fmt::format("no tap {} ({})", name, how_to_create(name)));
  }
  ifreq request{};
  std::memcpy(request.ifr_name, name.c_str(), name.size());
  request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
  if (::ioctl(fd.get(), TUNSETIFF, &request) < 0) {
    return std::unexpected(explain_attach(name, errno));
  }
  if (::ioctl(fd.get(), TUNSETVNETHDRSZ, &kHeaderBytes) < 0) {
    return base::fail_errno(fmt::format("tap {}: TUNSETVNETHDRSZ", name));
  }
  return std::unique_ptr<Tap>(new Tap(std::move(fd)));
}

uint64_t Tap::offloads() const {
  return kNetCsum | kNetGuestCsum | kNetGuestTso4 | kNetGuestTso6 | kNetHostTso4 | kNetHostTso6;
}

// What the guest sends may always ask for offloads; what it takes has to be told to the kernel.
Result<void> Tap::use_offloads(uint64_t features) {
  unsigned flags = 0;
  // Segmentation without checksums does not exist (virtio 1.2, 5.1.3.1).
  if (features & kNetGuestCsum) {
    flags |= TUN_F_CSUM;
    if (features & kNetGuestTso4) flags |= TUN_F_TSO4;
    if (features & kNetGuestTso6) flags |= TUN_F_TSO6;
  }
  if (::ioctl(fd_.get(), TUNSETOFFLOAD, flags) < 0) return base::fail_errno("tap: TUNSETOFFLOAD");
  return {};
}

}  // namespace virtio
