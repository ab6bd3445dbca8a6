// minivmm-slirp: the user-mode network of one machine (devices/virtio/net_user.h), started by it.
#include <arpa/inet.h>
#include <fmt/format.h>
#include <poll.h>
#include <slirp/libslirp.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

#include "devices/slirp/protocol.h"
#include "devices/virtio/net_user.h"

namespace slirp {
namespace {

using base::fail;
using base::Result;
using virtio::HostForward;

constexpr int kTurnFrames = 64;

in_addr address(const char* text) {
  in_addr result;
  inet_pton(AF_INET, text, &result);
  return result;
}

int64_t now_ns(void*) {
  return std::chrono::nanoseconds(std::chrono::steady_clock::now().time_since_epoch()).count();
}

short poll_events(int slirp_events) {
  int events = 0;
  if (slirp_events & SLIRP_POLL_IN) events |= POLLIN;
  if (slirp_events & SLIRP_POLL_OUT) events |= POLLOUT;
  if (slirp_events & SLIRP_POLL_PRI) events |= POLLPRI;
  return static_cast<short>(events);
}

int slirp_events(short events) {
  int result = 0;
  if (events & POLLIN) result |= SLIRP_POLL_IN;
  if (events & POLLOUT) result |= SLIRP_POLL_OUT;
  if (events & POLLPRI) result |= SLIRP_POLL_PRI;
  if (events & POLLERR) result |= SLIRP_POLL_ERR;
  if (events & POLLHUP) result |= SLIRP_POLL_HUP;
  return result;
}

// Called by libslirp. Its timers serve IPv6 router advertisements only, and on Linux it needs
// neither to register descriptors nor to wake the thread it runs on.
constexpr SlirpCb kCallbacks = {
    .send_packet = [](const void* frame, size_t size, void*) -> ssize_t {
      // Full, or nobody there: the frame is lost, TCP sends it again.
      (void)::send(kStackFd, frame, size, MSG_DONTWAIT | MSG_NOSIGNAL);
      return static_cast<ssize_t>(size);
    },
    .guest_error = [](const char*, void*) {},
    .clock_get_ns = now_ns,
    .timer_new = [](SlirpTimerCb, void*, void*) -> void* { return nullptr; },
    .timer_free = [](void*, void*) {},
    .timer_mod = [](void*, int64_t, void*) {},
    .register_poll_fd = [](int, void*) {},
    .unregister_poll_fd = [](int, void*) {},
    .notify = [](void*) {},
    .init_completed = nullptr,
    .timer_new_opaque = nullptr,
};

Result<void> add_forward(Slirp* slirp, const HostForward& forward) {
  // Guest address 0: the one that DHCP gives.
  if (slirp_add_hostfwd(slirp, forward.udp, forward.host_address, forward.host_port, in_addr{},
                        forward.guest_port) == 0) {
    return {};
  }
  int os_error = errno;
  std::string what = "forward " + to_string(forward);
  switch (os_error) {
    case EADDRINUSE:
      what += " (take another host port)";
      break;
    case EACCES:
      what +=
          " (ports below 1024 need a privilege: take a higher one, or give minivmm-slirp "
          "cap_net_bind_service)";
      break;
    case EADDRNOTAVAIL:
      what += " (the host has no such address)";
      break;
  }
  return fail(what, os_error);
}

// `words` are those of the command line (protocol.h).
Result<Slirp*> create_stack(const std::vector<std::string_view>& words) {
  SlirpConfig config{};
  config.version = 1;  // of the structure: all of libslirp 4 knows it
  config.in_enabled = true;
  config.vnetwork = address("10.0.2.0");
  config.vnetmask = address("255.255.255.0");
  config.vhost = address("10.0.2.2");
  config.vdhcp_start = address("10.0.2.15");
  config.vnameserver = address("10.0.2.3");
  std::vector<HostForward> forwards;
  for (std::string_view word : words) {
    if (word == kRestricted) {
      config.restricted = true;
      continue;
    }
    TRY_ASSIGN(HostForward forward, virtio::parse_host_forward(word));
    forwards.push_back(forward);
  }
  Slirp* slirp = slirp_new(&config, &kCallbacks, nullptr);
  if (slirp == nullptr) return fail("user-mode network: libslirp refused its configuration");
  for (const HostForward& forward : forwards) TRY(add_forward(slirp, forward));
  return slirp;
}

// False where the machine is gone.
bool take_frames(Slirp* slirp) {
  static std::array<uint8_t, 65536> frame;
  for (int frames = 0; frames < kTurnFrames; ++frames) {
    ssize_t size = ::recv(kStackFd, frame.data(), frame.size(), MSG_DONTWAIT);
    if (size < 0) return errno == EAGAIN || errno == EINTR;
    if (size == 0) return false;
    slirp_input(slirp, frame.data(), static_cast<int>(size));
  }
  return true;
}

void serve(Slirp* slirp) {
  std::vector<pollfd> polled;
  for (;;) {
    polled = {{kStackFd, POLLIN, 0}};
    uint32_t timeout_ms = UINT32_MAX;
    auto add_poll = [](int fd, int events, void* opaque) {
      auto& list = *static_cast<std::vector<pollfd>*>(opaque);
      list.push_back({fd, poll_events(events), 0});
      return static_cast<int>(list.size() - 1);
    };
    slirp_pollfds_fill(slirp, &timeout_ms, add_poll, &polled);
    int ready = ::poll(polled.data(), polled.size(), static_cast<int>(timeout_ms));
    auto ready_events = [](int index, void* opaque) {
      auto& list = *static_cast<std::vector<pollfd>*>(opaque);
      return slirp_events(list[static_cast<size_t>(index)].revents);
    };
    // Sockets first: this also sets the stack's clock, and what the guest sends is to be stamped
    // with the time of now (a datagram's socket that looks 240 s old is closed at once).
    slirp_pollfds_poll(slirp, ready < 0, ready_events, &polled);
    if (ready < 0 || polled[0].revents == 0) continue;
    if (!take_frames(slirp)) return;
    // slirp_pollfds_poll() ends in sending what is queued: what waited for the guest's ARP reply
    // would otherwise wait for some timer too. No socket is looked at twice.
    auto no_events = [](int, void*) { return 0; };
    slirp_pollfds_poll(slirp, 0, no_events, nullptr);
  }
}

int run(const std::vector<std::string_view>& words) {
  int type = 0;
  socklen_t size = sizeof type;
  if (::getsockopt(kStackFd, SOL_SOCKET, SO_TYPE, &type, &size) < 0 || type != SOCK_SEQPACKET) {
    fmt::print(stderr, "minivmm-slirp: started by minivmm for --net user, and by nobody else\n");
    return 2;
  }
  // It parses what strangers send: whatever becomes of it, it gets no more than it has.
  ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  ::close_range(kStackFd + 1, ~0U, 0);
  auto slirp = create_stack(words);
  std::string first = slirp ? kReady : slirp.error().text();
  if (::send(kStackFd, first.data(), first.size(), MSG_NOSIGNAL) < 0 || !slirp) return 1;
  serve(*slirp);
  slirp_cleanup(*slirp);
  return 0;
}

}  // namespace
}  // namespace slirp

int main(int argc, char** argv) {
  return slirp::run(std::vector<std::string_view>(argv + 1, argv + argc));
}
