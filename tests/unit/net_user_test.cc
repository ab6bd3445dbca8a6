// The guest's side is played by hand, frame by frame; the stack behind it is the real libslirp.
#include "devices/virtio/net_user.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>

namespace virtio {
namespace {

using ::testing::HasSubstr;
using Bytes = std::vector<uint8_t>;

const Bytes kGuestMac{0x52, 0x54, 0x00, 0x12, 0x34, 0x56};
const Bytes kBroadcast(6, 0xFF);
const Bytes kGuestIp{10, 0, 2, 15}, kGateway{10, 0, 2, 2};
constexpr int kPatienceMs = 10'000;  // only a broken stack needs it

Bytes operator+(Bytes left, const Bytes& right) {
  left.insert(left.end(), right.begin(), right.end());
  return left;
}

Bytes part(const Bytes& bytes, size_t offset, size_t size) {
  if (bytes.size() < offset + size) return {};
  return {bytes.begin() + static_cast<long>(offset),
          bytes.begin() + static_cast<long>(offset + size)};
}

uint16_t be16(const Bytes& bytes, size_t offset) {
  return static_cast<uint16_t>(bytes[offset] << 8 | bytes[offset + 1]);
}

Bytes arp(uint8_t operation, const Bytes& to, const Bytes& target_mac, const Bytes& target_ip) {
  return to + kGuestMac + Bytes{8, 6, 0, 1, 8, 0, 6, 4, 0, operation} + kGuestMac + kGuestIp +
         target_mac + target_ip;
}

bool is_arp(const Bytes& frame, uint8_t operation) {
  return frame.size() >= 42 && be16(frame, 12) == 0x0806 && frame[21] == operation;
}

bool is_ipv4(const Bytes& frame, uint8_t protocol) {
  return frame.size() >= 34 && be16(frame, 12) == 0x0800 && frame[23] == protocol;
}

uint16_t checksum(const Bytes& bytes) {
  uint32_t sum = 0;
  for (size_t i = 0; i + 1 < bytes.size(); i += 2) sum += be16(bytes, i);
  while (sum >> 16) sum = (sum & 0xFFFF) + (sum >> 16);
  return static_cast<uint16_t>(~sum);
}

Bytes udp4(const Bytes& from, const Bytes& to, uint16_t from_port, uint16_t to_port,
           const Bytes& payload) {
  auto be = [](size_t value) {
    return Bytes{static_cast<uint8_t>(value >> 8), static_cast<uint8_t>(value)};
  };
  Bytes ip = Bytes{0x45, 0} + be(28 + payload.size()) + Bytes{0, 1, 0, 0, 64, 17, 0, 0} + from + to;
  uint16_t sum = checksum(ip);
  ip[10] = static_cast<uint8_t>(sum >> 8);
  ip[11] = static_cast<uint8_t>(sum);
  return kBroadcast + kGuestMac + Bytes{8, 0} + ip + be(from_port) + be(to_port) +
         be(8 + payload.size()) + Bytes{0, 0} + payload;
}

class Guest {
 public:
  explicit Guest(const UserNetwork& network) : fd_(network.fd()) {}

  void send(const Bytes& frame) {
    ASSERT_EQ(::send(fd_, frame.data(), frame.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(frame.size()));
  }
  // The next frame that is wanted; ARP requests for the guest are answered meanwhile. Empty where
  // none comes.
  Bytes receive(const std::function<bool(const Bytes&)>& wanted) {
    pollfd readable{fd_, POLLIN, 0};
    while (::poll(&readable, 1, kPatienceMs) > 0) {
      Bytes frame(65536);
      ssize_t size = ::recv(fd_, frame.data(), frame.size(), 0);
      if (size <= 0) return {};
      frame.resize(static_cast<size_t>(size));
      if (wanted(frame)) return frame;
      if (is_arp(frame, 1) && part(frame, 38, 4) == kGuestIp) {
        send(arp(2, part(frame, 6, 6), part(frame, 22, 6), part(frame, 28, 4)));
      }
    }
    return {};
  }

 private:
  int fd_;
};

base::Result<std::unique_ptr<UserNetwork>> start(std::vector<HostForward> forwards = {},
                                                 bool restricted = false) {
  return UserNetwork::start({std::move(forwards), restricted, MINIVMM_SLIRP});
}

base::Fd bind_loopback(int type, uint16_t& port) {
  base::Fd socket(::socket(AF_INET, type | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  EXPECT_EQ(::bind(socket.get(), reinterpret_cast<sockaddr*>(&address), size), 0);
  EXPECT_EQ(::getsockname(socket.get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
  port = ntohs(address.sin_port);
  return socket;
}

// A network with a forwarded port that was free a moment ago.
std::unique_ptr<UserNetwork> start_forwarding(bool udp, uint16_t guest_port, uint16_t& host_port,
                                              bool restricted = false) {
  for (int attempt = 0; attempt < 20; ++attempt) {
    bind_loopback(udp ? SOCK_DGRAM : SOCK_STREAM, host_port).reset();
    HostForward forward{udp, {htonl(INADDR_LOOPBACK)}, host_port, guest_port};
    auto network = start({forward}, restricted);
    if (network) return std::move(*network);
  }
  return nullptr;
}

sockaddr_in loopback(uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(port);
  return address;
}

TEST(UserNetwork, AnswersForItsGateway) {
  auto network = start();
  ASSERT_TRUE(network) << network.error().text();
  Guest guest(**network);
  guest.send(arp(1, kBroadcast, Bytes(6), kGateway));
  Bytes reply = guest.receive([](const Bytes& frame) { return is_arp(frame, 2); });
  ASSERT_GE(reply.size(), 42u);
  EXPECT_EQ(part(reply, 0, 6), kGuestMac);
  EXPECT_EQ(part(reply, 28, 4), kGateway);
  EXPECT_EQ(part(reply, 22, 6), part(reply, 6, 6));  // the sender's address in both places
}

TEST(UserNetwork, GivesAnAddressByDhcp) {
  auto network = start();
  ASSERT_TRUE(network) << network.error().text();
  Guest guest(**network);
  // DHCPDISCOVER (RFC 2131): BOOTP request, transaction 0x12345678, magic cookie, message type 1.
  Bytes request = Bytes{1, 1, 6, 0, 0x12, 0x34, 0x56, 0x78} + Bytes(20) + kGuestMac + Bytes(202) +
                  Bytes{0x63, 0x82, 0x53, 0x63, 53, 1, 1, 255} + Bytes(60);
  guest.send(udp4(Bytes(4), Bytes(4, 255), 68, 67, request));
  Bytes offer =
      guest.receive([](const Bytes& frame) { return is_ipv4(frame, 17) && be16(frame, 36) == 68; });
  ASSERT_GT(offer.size(), 42u + 240u);
  Bytes bootp = part(offer, 42, offer.size() - 42);
  EXPECT_EQ(bootp[0], 2);
  EXPECT_EQ(part(bootp, 4, 4), (Bytes{0x12, 0x34, 0x56, 0x78}));
  EXPECT_EQ(part(bootp, 16, 4), kGuestIp);
  Bytes options = part(bootp, 240, bootp.size() - 240);
  auto has = [&](const Bytes& option) {
    return std::ranges::search(options, option).size() == option.size();
  };
  EXPECT_TRUE(has({53, 1, 2}));                // DHCPOFFER
  EXPECT_TRUE(has({1, 4, 255, 255, 255, 0}));  // netmask
  EXPECT_TRUE(has({3, 4, 10, 0, 2, 2}));       // router
  EXPECT_TRUE(has({6, 4, 10, 0, 2, 3}));       // name server
}

TEST(UserNetwork, CarriesDatagramsToTheHostAndBack) {
  uint16_t port = 0;
  base::Fd host = bind_loopback(SOCK_DGRAM, port);
  auto network = start();
  ASSERT_TRUE(network) << network.error().text();
  Guest guest(**network);
  guest.send(udp4(kGuestIp, kGateway, 5000, port, {'p', 'i', 'n', 'g'}));  // 10.0.2.2: the host
  pollfd readable{host.get(), POLLIN, 0};
  ASSERT_EQ(::poll(&readable, 1, kPatienceMs), 1);
  char data[16];
  sockaddr_in peer{};
  socklen_t peer_size = sizeof peer;
  ASSERT_EQ(
      ::recvfrom(host.get(), data, sizeof data, 0, reinterpret_cast<sockaddr*>(&peer), &peer_size),
      4);
  EXPECT_EQ(std::string(data, 4), "ping");
  ASSERT_EQ(::sendto(host.get(), "pong", 4, 0, reinterpret_cast<sockaddr*>(&peer), peer_size), 4);
  Bytes reply = guest.receive(
      [](const Bytes& frame) { return is_ipv4(frame, 17) && be16(frame, 36) == 5000; });
  EXPECT_EQ(part(reply, 26, 4), kGateway);
  EXPECT_EQ(part(reply, 42, 4), (Bytes{'p', 'o', 'n', 'g'}));
}

TEST(UserNetwork, ARestrictedGuestDoesNotReachTheHost) {
  uint16_t port = 0;
  base::Fd host = bind_loopback(SOCK_DGRAM, port);
  auto network = start({}, true);
  ASSERT_TRUE(network) << network.error().text();
  Guest guest(**network);
  guest.send(udp4(kGuestIp, kGateway, 5000, port, {'p', 'i', 'n', 'g'}));
  // Frames are taken in order: after this answer the datagram has been looked at.
  guest.send(arp(1, kBroadcast, Bytes(6), kGateway));
  EXPECT_FALSE(guest.receive([](const Bytes& frame) { return is_arp(frame, 2); }).empty());
  char data[16];
  EXPECT_EQ(::recv(host.get(), data, sizeof data, MSG_DONTWAIT), -1);
}

TEST(UserNetwork, ForwardsATcpPortOfTheHost) {
  for (bool restricted : {false, true}) {
    uint16_t port = 0;
    auto network = start_forwarding(false, 22, port, restricted);
    ASSERT_TRUE(network);
    Guest guest(*network);
    base::Fd client(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address = loopback(port);
    ASSERT_EQ(::connect(client.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    Bytes syn =
        guest.receive([](const Bytes& frame) { return is_ipv4(frame, 6) && frame.size() >= 54; });
    ASSERT_GE(syn.size(), 54u);
    EXPECT_EQ(part(syn, 0, 6), kGuestMac);
    EXPECT_EQ(part(syn, 30, 4), kGuestIp);
    EXPECT_EQ(be16(syn, 36), 22);
    EXPECT_EQ(syn[47] & 0x3F, 0x02);  // SYN alone
  }
}

TEST(UserNetwork, ForwardsAUdpPortOfTheHost) {
  uint16_t port = 0;
  auto network = start_forwarding(true, 5353, port);
  ASSERT_TRUE(network);
  Guest guest(*network);
  base::Fd client(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_in address = loopback(port);
  ASSERT_EQ(
      ::sendto(client.get(), "hello", 5, 0, reinterpret_cast<sockaddr*>(&address), sizeof address),
      5);
  Bytes datagram = guest.receive(
      [](const Bytes& frame) { return is_ipv4(frame, 17) && be16(frame, 36) == 5353; });
  EXPECT_EQ(part(datagram, 42, 5), (Bytes{'h', 'e', 'l', 'l', 'o'}));
}

TEST(UserNetwork, APortInUseIsRefused) {
  uint16_t port = 0;
  base::Fd taken = bind_loopback(SOCK_STREAM, port);
  ASSERT_EQ(::listen(taken.get(), 1), 0);
  auto network = start({{false, {htonl(INADDR_LOOPBACK)}, port, 22}});
  ASSERT_FALSE(network);
  EXPECT_EQ(network.error().text(), "forward tcp:127.0.0.1:" + std::to_string(port) +
                                        "-22 (take another host port): Address already in use");
}

TEST(UserNetwork, SurvivesFramesThatAreNone) {
  auto network = start();
  ASSERT_TRUE(network) << network.error().text();
  Guest guest(**network);
  guest.send({1});
  guest.send(Bytes(14));
  guest.send(kBroadcast + kGuestMac + Bytes{8, 0, 0x4F, 0xFF});
  guest.send(kBroadcast + kGuestMac + Bytes{8, 6, 1, 2, 3});
  guest.send(arp(1, kBroadcast, Bytes(6), kGateway));
  EXPECT_FALSE(guest.receive([](const Bytes& frame) { return is_arp(frame, 2); }).empty());
}

// The kernel's word for it: what it says of a process that was killed and not waited for.
bool ended(pid_t pid) {
  siginfo_t info{};
  return ::waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOWAIT) == 0;
}

pid_t only_child() {
  std::ifstream children(fmt::format("/proc/self/task/{}/children", ::gettid()));
  pid_t pid = 0, another = 0;
  children >> pid;
  EXPECT_FALSE(children >> another);
  return pid;
}

TEST(UserNetwork, AStackThatDiesIsACableThatWasPulled) {
  auto network = start();
  ASSERT_TRUE(network) << network.error().text();
  pid_t stack = only_child();
  ASSERT_GT(stack, 0);
  ::kill(stack, SIGKILL);
  ASSERT_TRUE(ended(stack));
  uint8_t frame[64] = {};
  EXPECT_EQ(::recv((*network)->fd(), frame, sizeof frame, 0), 0);  // the end, as Net takes it
  EXPECT_EQ(::send((*network)->fd(), frame, sizeof frame, MSG_NOSIGNAL), -1);
  EXPECT_EQ(errno, EPIPE);
}

TEST(UserNetwork, NoSignalOfTheTerminalEndsTheStack) {
  auto network = start();
  ASSERT_TRUE(network) << network.error().text();
  pid_t stack = only_child();
  ASSERT_GT(stack, 0);
  for (int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP}) ::kill(stack, signal);
  Guest guest(**network);
  guest.send(arp(1, kBroadcast, Bytes(6), kGateway));
  EXPECT_FALSE(guest.receive([](const Bytes& frame) { return is_arp(frame, 2); }).empty());
}

TEST(UserNetwork, ItsPortIsFreeAgainAfterIt) {
  uint16_t port = 0;
  auto network = start_forwarding(false, 22, port);
  ASSERT_TRUE(network);
  network.reset();
  auto again = start({{false, {htonl(INADDR_LOOPBACK)}, port, 22}});
  EXPECT_TRUE(again) << again.error().text();
}

TEST(UserNetwork, AStackThatIsNotThereIsSaid) {
  UserNetwork::Options options;
  options.program = "/nonexistent/minivmm-slirp";
  auto network = UserNetwork::start(options);
  ASSERT_FALSE(network);
  EXPECT_THAT(network.error().text(), HasSubstr("/nonexistent/minivmm-slirp (it belongs beside"));
  options.program = "";  // beside this program, where it is not
  network = UserNetwork::start(options);
  ASSERT_FALSE(network);
  auto self = std::filesystem::read_symlink("/proc/self/exe");
  EXPECT_THAT(network.error().text(),
              HasSubstr((self.parent_path() / "minivmm-slirp").string() + " (it belongs"));
  options.program = "/bin/true";
  network = UserNetwork::start(options);
  ASSERT_FALSE(network);
  EXPECT_THAT(network.error().text(), HasSubstr("ended at once"));
}

TEST(HostForward, IsRead) {
  auto forward = parse_host_forward("tcp::2222-22");
  ASSERT_TRUE(forward) << forward.error().text();
  EXPECT_FALSE(forward->udp);
  EXPECT_EQ(forward->host_address.s_addr, htonl(INADDR_LOOPBACK));
  EXPECT_EQ(forward->host_port, 2222);
  EXPECT_EQ(forward->guest_port, 22);
  forward = parse_host_forward("udp:0.0.0.0:65535-1");
  ASSERT_TRUE(forward) << forward.error().text();
  EXPECT_TRUE(forward->udp);
  EXPECT_EQ(forward->host_address.s_addr, 0u);
  EXPECT_EQ(to_string(*forward), "udp:0.0.0.0:65535-1");
  EXPECT_EQ(forward->host_port, 65535);
}

TEST(HostForward, RefusesWhatIsNone) {
  for (auto [text, why] : std::initializer_list<std::pair<const char*, const char*>>{
           {"", "two colons"},
           {"tcp:2222-22", "two colons"},
           {"sctp::2222-22", "neither tcp nor udp"},
           {"tcp:localhost:2222-22", "'localhost' is not an IPv4 address"},
           {"tcp::2222", "no guest port"},
           {"tcp::0-22", "'0' is not a port"},
           {"tcp::2222-65536", "'65536' is not a port"},
           {"tcp::2222-22x", "'22x' is not a port"},
           {"tcp::-22", "'' is not a port"}}) {
    auto forward = parse_host_forward(text);
    ASSERT_FALSE(forward) << text;
    EXPECT_THAT(forward.error().text(), HasSubstr(why));
    EXPECT_THAT(forward.error().text(), HasSubstr("write it as tcp:"));
  }
}

}  // namespace
}  // namespace virtio
