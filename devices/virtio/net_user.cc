#include "devices/virtio/net_user.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <climits>

#include "devices/slirp/protocol.h"
#include "vmm/base/path.h"

namespace virtio {

using base::fail;
using base::Result;

namespace {

// Room for some full TCP windows on their way to the guest; the kernel may grant less.
constexpr int kSocketBytes = 1 << 20;
// It says its first word in milliseconds. While it is waited for no signal is looked at.
constexpr int kFirstWordMs = 10'000;

Result<uint16_t> parse_port(std::string_view text) {
  uint16_t port = 0;
  auto [end, error] = std::from_chars(text.begin(), text.end(), port);
  if (error != std::errc{} || end != text.end() || port == 0) {
    return fail(fmt::format("'{}' is not a port (1 to 65535)", text));
  }
  return port;
}

Result<std::string> installed_program() {
  std::array<char, PATH_MAX> self;
  ssize_t length = ::readlink("/proc/self/exe", self.data(), self.size());
  if (length < 0) return base::fail_errno("user-mode network: /proc/self/exe");
  return base::parent_directory({self.data(), static_cast<size_t>(length)}) + "/minivmm-slirp";
}

// With the one end of the socket pair as its descriptor kStackFd, and no other of this process's
// but standard error. No signal reaches it: a Ctrl-C is for the machine.
Result<pid_t> spawn(const std::string& program, const UserNetwork::Options& options,
                    int stack_end) {
  std::vector<std::string> words{program};
  if (options.restricted) words.push_back(slirp::kRestricted);
  for (const HostForward& forward : options.forwards) words.push_back(to_string(forward));
  std::vector<char*> argv(words.size() + 1);
  std::ranges::transform(words, argv.begin(), [](std::string& word) { return word.data(); });

  posix_spawn_file_actions_t files;
  ::posix_spawn_file_actions_init(&files);
  ::posix_spawn_file_actions_adddup2(&files, stack_end, slirp::kStackFd);
  ::posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  ::posix_spawn_file_actions_addopen(&files, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
  posix_spawnattr_t attributes;
  ::posix_spawnattr_init(&attributes);
  sigset_t all;
  sigfillset(&all);
  ::posix_spawnattr_setsigmask(&attributes, &all);
  ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
  pid_t pid = -1;
  int error = ::posix_spawn(&pid, program.c_str(), &files, &attributes, argv.data(), environ);
  ::posix_spawnattr_destroy(&attributes);
  ::posix_spawn_file_actions_destroy(&files);
  if (error != 0) {
    return fail(fmt::format("user-mode network: start {} (it belongs beside minivmm; a tap goes "
                            "without it)",
                            program),
                error);
  }
  return pid;
}

// What the stack says first: that it is there, or why it is not.
Result<void> wait_for_stack(int fd) {
  pollfd readable{fd, POLLIN, 0};
  int ready = 0;
  while ((ready = ::poll(&readable, 1, kFirstWordMs)) < 0 && errno == EINTR) {
  }
  if (ready == 0) {
    return fail(
        fmt::format("user-mode network: minivmm-slirp says nothing for {} s (a tap goes "
                    "without it)",
                    kFirstWordMs / 1000));
  }
  char text[1024];
  ssize_t size = ::recv(fd, text, sizeof text, 0);
  if (size <= 0) {
    return fail(
        "user-mode network: minivmm-slirp ended at once (is Debian's package libslirp0 installed? "
        "a tap goes without it)");
  }
  std::string_view said(text, static_cast<size_t>(size));
  if (said.starts_with(slirp::kReadyOfAny) && said != slirp::kReady) {
    return fail(
        fmt::format("user-mode network: the minivmm-slirp beside minivmm is of another version "
                    "({} instead of {}): install both together",
                    said, slirp::kReady));
  }
  if (said != slirp::kReady) return fail(std::string(said));
  return {};
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

std::string to_string(const HostForward& forward) {
  char address[INET_ADDRSTRLEN];
  inet_ntop(AF_INET, &forward.host_address, address, sizeof address);
  return fmt::format("{}:{}:{}-{}", forward.udp ? "udp" : "tcp", address, forward.host_port,
                     forward.guest_port);
}

Result<std::unique_ptr<UserNetwork>> UserNetwork::start(const Options& options) {
  std::string program = options.program;
  if (program.empty()) {
    TRY_ASSIGN(program, installed_program());
  }
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) < 0) {
    return base::fail_errno("user-mode network: socketpair");
  }
  base::Fd device_end(ends[0]), stack_end(ends[1]);
  for (int end : ends) ::setsockopt(end, SOL_SOCKET, SO_SNDBUF, &kSocketBytes, sizeof kSocketBytes);
  // Whoever started this process may ignore it, and then the number of a stack that has ended would
  // be another process's before it is waited for.
  ::signal(SIGCHLD, SIG_DFL);
  TRY_ASSIGN(pid_t stack, spawn(program, options, stack_end.get()));
  stack_end.reset();  // so that the stack's end is the end of the link
  std::unique_ptr<UserNetwork> network(new UserNetwork(std::move(device_end), stack));
  TRY(wait_for_stack(network->fd()));
  return network;
}

UserNetwork::~UserNetwork() {
  ::kill(stack_, SIGKILL);
  while (::waitpid(stack_, nullptr, 0) < 0 && errno == EINTR) {
  }
}

}  // namespace virtio
