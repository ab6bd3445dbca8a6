#include "devices/virtio/net_user.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <sys/socket.h>

#include <charconv>
#include <chrono>
#include <string>

#include "vmm/base/thread.h"

namespace virtio {

using base::fail;
using base::Result;

namespace {

constexpr int kTurnFrames = 64;
// Room for some full TCP windows on their way to the guest; the kernel may grant less.
constexpr int kSocketBytes = 1 << 20;

Result<uint16_t> parse_port(std::string_view text) {
  uint16_t port = 0;
  auto [end, error] = std::from_chars(text.begin(), text.end(), port);
  if (error != std::errc{} || end != text.end() || port == 0) {
    return fail(fmt::format("'{}' is not a port (1 to 65535)", text));
  }
  return port;
}

std::string describe(const HostForward& forward) {
  char address[INET_ADDRSTRLEN];
  inet_ntop(AF_INET, &forward.host_address, address, sizeof address);
  return fmt::format("forward {} {}:{} to the guest's port {}", forward.udp ? "udp" : "tcp",
                     address, forward.host_port, forward.guest_port);
}

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

}  // namespace

Result<HostForward> parse_host_forward(std::string_view text) {
  auto refuse = [&](const std::string& why) {
    return fail(
        fmt::format("hostfwd={}: {}: write it as tcp:[HOSTADDR]:HOSTPORT-GUESTPORT", text, why));
  };
  HostForward forward;
  size_t first = text.find(':'), second = text.find(':', first + 1);
  if (first == text.npos || second == text.npos) return refuse("two colons are needed");
  std::string_view protocol = text.substr(0, first);
  if (protocol != "tcp" && protocol != "udp") return refuse("neither tcp nor udp");
  forward.udp = protocol == "udp";
  std::string host(text.substr(first + 1, second - first - 1));
  if (host.empty()) host = "127.0.0.1";
  if (inet_pton(AF_INET, host.c_str(), &forward.host_address) != 1) {
    return refuse(fmt::format("'{}' is not an IPv4 address", host));
  }
  std::string_view ports = text.substr(second + 1);
  size_t dash = ports.find('-');
  if (dash == ports.npos) return refuse("no guest port");
  auto host_port = parse_port(ports.substr(0, dash));
  if (!host_port) return refuse(host_port.error().text());
  auto guest_port = parse_port(ports.substr(dash + 1));
  if (!guest_port) return refuse(guest_port.error().text());
  forward.host_port = *host_port;
  forward.guest_port = *guest_port;
  return forward;
}

// Called by libslirp on the stack's thread. Its timers serve IPv6 router advertisements only, and
// on Linux it needs neither to register descriptors nor to wake the thread it runs on.
const SlirpCb UserNetwork::kCallbacks = {
    .send_packet = [](const void* frame, size_t size, void* opaque) -> ssize_t {
      auto* self = static_cast<UserNetwork*>(opaque);
      // Full, or nobody there: the frame is lost, TCP sends it again.
      (void)::send(self->stack_end_.get(), frame, size, MSG_DONTWAIT | MSG_NOSIGNAL);
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

Result<std::unique_ptr<UserNetwork>> UserNetwork::start(const Options& options) {
  TRY_ASSIGN(SlirpLibrary library, SlirpLibrary::load());
  TRY_ASSIGN(base::EventFd stop, base::EventFd::create());
  std::unique_ptr<UserNetwork> network(new UserNetwork(library, std::move(stop)));
  TRY(network->connect_ends());
  TRY(network->create_stack(options));
  TRY_ASSIGN(network->thread_,
             base::start_thread("user-network", [raw = network.get()] { raw->loop(); }));
  return network;
}

UserNetwork::~UserNetwork() {
  stop_.signal();
  if (thread_.joinable()) thread_.join();
  if (slirp_) library_.cleanup(slirp_);
}

Result<void> UserNetwork::connect_ends() {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) < 0) {
    return base::fail_errno("user-mode network: socketpair");
  }
  device_end_.reset(ends[0]);
  stack_end_.reset(ends[1]);
  for (int end : ends) ::setsockopt(end, SOL_SOCKET, SO_SNDBUF, &kSocketBytes, sizeof kSocketBytes);
  return {};
}

Result<void> UserNetwork::create_stack(const Options& options) {
  SlirpConfig config{};
  config.version = 1;  // of the structure: all of libslirp 4 knows it
  config.restricted = options.restricted;
  config.in_enabled = true;
  config.vnetwork = address("10.0.2.0");
  config.vnetmask = address("255.255.255.0");
  config.vhost = address("10.0.2.2");
  config.vdhcp_start = address("10.0.2.15");
  config.vnameserver = address("10.0.2.3");
  slirp_ = library_.create(&config, &kCallbacks, this);
  if (!slirp_) return fail("user-mode network: libslirp refused its configuration");
  for (const HostForward& forward : options.forwards) TRY(add_forward(forward));
  return {};
}

Result<void> UserNetwork::add_forward(const HostForward& forward) {
  // Guest address 0: the one that DHCP gives.
  if (library_.add_hostfwd(slirp_, forward.udp, forward.host_address, forward.host_port, in_addr{},
                           forward.guest_port) == 0) {
    return {};
  }
  int os_error = errno;
  std::string what = describe(forward);
  switch (os_error) {
    case EADDRINUSE:
      what += " (take another host port)";
      break;
    case EACCES:
      what += " (ports below 1024 need a privilege: take a higher one)";
      break;
    case EADDRNOTAVAIL:
      what += " (the host has no such address)";
      break;
  }
  return fail(what, os_error);
}

void UserNetwork::loop() {
  for (;;) {
    polled_ = {{stop_.fd(), POLLIN, 0}, {stack_end_.get(), POLLIN, 0}};
    uint32_t timeout_ms = UINT32_MAX;
    auto add_poll = [](int fd, int events, void* opaque) {
      auto& polled = static_cast<UserNetwork*>(opaque)->polled_;
      polled.push_back({fd, poll_events(events), 0});
      return static_cast<int>(polled.size() - 1);
    };
    library_.pollfds_fill(slirp_, &timeout_ms, add_poll, this);
    int ready = ::poll(polled_.data(), polled_.size(), static_cast<int>(timeout_ms));
    if (polled_[0].revents) return;
    auto ready_events = [](int index, void* opaque) {
      auto& polled = static_cast<UserNetwork*>(opaque)->polled_;
      return slirp_events(polled[static_cast<size_t>(index)].revents);
    };
    // Sockets first: this also sets the stack's clock, and what the guest sends is to be stamped
    // with the time of now (a datagram's socket that looks 240 s old is closed at once).
    library_.pollfds_poll(slirp_, ready < 0, ready_events, this);
    if (!(polled_[1].revents & POLLIN)) continue;
    take_frames();
    // pollfds_poll() ends in sending what is queued: what waited for the guest's ARP reply would
    // otherwise wait for some timer too. No socket is looked at twice.
    auto no_events = [](int, void*) { return 0; };
    library_.pollfds_poll(slirp_, 0, no_events, this);
  }
}

void UserNetwork::take_frames() {
  for (int frames = 0; frames < kTurnFrames; ++frames) {
    ssize_t size = ::recv(stack_end_.get(), frame_.data(), frame_.size(), MSG_DONTWAIT);
    if (size <= 0) return;
    library_.input(slirp_, frame_.data(), static_cast<int>(size));
  }
}

}  // namespace virtio
