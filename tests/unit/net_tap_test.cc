// A real tap, in a network namespace of the test's own. Where that cannot be made (no privilege, no
// tun driver) the test is skipped and says so.
#include "devices/virtio/net_tap.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <cstring>
#include <functional>
#include <thread>

#include "devices/virtio/net.h"
#include "tests/support/fake_transport.h"

namespace virtio {
namespace {

using testing_support::FakeTransport;
using vmm::Gpa;
using Bytes = std::vector<std::byte>;

constexpr const char* kName = "minivmm-test0";
constexpr Gpa kData{0x100000};
constexpr size_t kHeader = 12;
constexpr uint16_t kTestProtocol = 0x88B5;  // IEEE 802: local experimental

// Makes a tap that stays; "" where it worked, else why not.
std::string make_tap() {
  auto fail = [](const char* what) { return std::string(what) + ": " + std::strerror(errno); };
  base::Fd tun(::open("/dev/net/tun", O_RDWR | O_CLOEXEC));
  if (!tun) return fail("/dev/net/tun");
  ifreq request{};
  std::strcpy(request.ifr_name, kName);
  request.ifr_flags = IFF_TAP | IFF_NO_PI;
  if (::ioctl(tun.get(), TUNSETIFF, &request) < 0) return fail("TUNSETIFF");
  if (::ioctl(tun.get(), TUNSETPERSIST, 1) < 0) return fail("TUNSETPERSIST");
  base::Fd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  request.ifr_flags = IFF_UP;
  if (::ioctl(socket.get(), SIOCSIFFLAGS, &request) < 0) return fail("interface up");
  return "";
}

void delete_tap() {
  base::Fd socket(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
  struct {
    nlmsghdr header{};
    ifinfomsg link{};
  } message;
  message.header.nlmsg_len = sizeof message;
  message.header.nlmsg_type = RTM_DELLINK;
  message.header.nlmsg_flags = NLM_F_REQUEST;
  message.link.ifi_index = static_cast<int>(::if_nametoindex(kName));
  ASSERT_EQ(::send(socket.get(), &message, sizeof message, 0),
            static_cast<ssize_t>(sizeof message));
}

// Runs `test` on a thread with a network of its own, that has one tap.
void with_tap(const std::function<void()>& test) {
  std::string skipped;
  std::thread([&] {
    if (::unshare(CLONE_NEWNET) < 0) {
      skipped = std::string("no network namespace: ") + std::strerror(errno);
      return;
    }
    skipped = make_tap();
    if (skipped.empty()) test();
  }).join();
  if (!skipped.empty()) GTEST_SKIP() << skipped;
}

// The host's side of the tap: frames of the test's protocol, whole.
base::Fd open_packet_socket() {
  base::Fd socket(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(kTestProtocol)));
  sockaddr_ll address{};
  address.sll_family = AF_PACKET;
  address.sll_protocol = htons(kTestProtocol);
  address.sll_ifindex = static_cast<int>(::if_nametoindex(kName));
  EXPECT_EQ(::bind(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  return socket;
}

Bytes make_frame(size_t size, uint8_t seed) {
  Bytes frame(size);
  for (size_t i = 0; i < size; ++i) frame[i] = static_cast<std::byte>(seed + i * 7);
  const uint8_t head[14] = {0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x52,
                            0x54, 0,    0x12, 0x34, 0x56, 0x88, 0xB5};
  std::memcpy(frame.data(), head, sizeof head);
  return frame;
}

TEST(Tap, CarriesFramesBothWays) {
  with_tap([] {
    auto tap = Tap::open(kName);
    ASSERT_TRUE(tap) << tap.error().text();
    Net net("net0", {0x52, 0x54, 0, 0x12, 0x34, 0x56}, std::move(*tap));
    FakeTransport transport(net);
    ASSERT_TRUE(transport.activate());
    base::Fd host = open_packet_socket();

    Bytes out = make_frame(1514, 1);
    ASSERT_TRUE(transport.memory().write(kData + kHeader, out));
    transport.driver(Net::kTransmitQueue).add(0, {{kData, 12}, {kData + 12, 1514}}, {});
    transport.kick(Net::kTransmitQueue);
    ASSERT_EQ(net.counters().sent_frames, 1u);
    pollfd readable{host.get(), POLLIN, 0};
    ASSERT_EQ(::poll(&readable, 1, 10'000), 1);
    Bytes seen(2000);
    ssize_t size = ::recv(host.get(), seen.data(), seen.size(), 0);
    seen.resize(size > 0 ? static_cast<size_t>(size) : 0);
    EXPECT_EQ(seen, out);

    // The host's stack may have frames of its own to send: ours is the one of our protocol.
    Bytes in = make_frame(1000, 2);
    auto& driver = transport.driver(Net::kReceiveQueue);
    for (uint16_t i = 0; i < 16; ++i) driver.add(i, {}, {{kData + 0x1000u * i, 2000}});
    ASSERT_EQ(::send(host.get(), in.data(), in.size(), 0), 1000);
    Bytes received(1000);
    for (uint16_t next = 0; received != in; ++next) {
      while (driver.used_index() == next) ASSERT_TRUE(transport.poll(10'000));
      ASSERT_LT(next, 16);
      if (driver.used(next).length != kHeader + 1000) continue;
      ASSERT_TRUE(transport.memory().read(kData + 0x1000u * next + kHeader, received));
    }
  });
}

TEST(Tap, TakesEveryCombinationOfOffloads) {
  with_tap([] {
    auto tap = Tap::open(kName);
    ASSERT_TRUE(tap) << tap.error().text();
    for (uint64_t some : {uint64_t{0}, kNetGuestCsum, kNetGuestTso4, kNetGuestCsum | kNetGuestTso6,
                          (*tap)->offloads()}) {
      auto used = (*tap)->use_offloads(some);
      EXPECT_TRUE(used) << used.error().text();
    }
  });
}

TEST(Tap, ATapThatWasDeletedIsALostLink) {
  with_tap([] {
    auto tap = Tap::open(kName);
    ASSERT_TRUE(tap) << tap.error().text();
    Net net("net0", {0x52, 0x54, 0, 0x12, 0x34, 0x56}, std::move(*tap));
    FakeTransport transport(net);
    ASSERT_TRUE(transport.activate());
    delete_tap();
    while (transport.config_changes() == 0) ASSERT_TRUE(transport.poll(10'000));
    EXPECT_EQ(transport.watches(), 0u);
    EXPECT_FALSE(transport.failure());
  });
}

TEST(Tap, OneThatIsInUseIsRefused) {
  with_tap([] {
    auto first = Tap::open(kName);
    ASSERT_TRUE(first) << first.error().text();
    auto second = Tap::open(kName);
    ASSERT_FALSE(second);
    EXPECT_EQ(second.error().text(),
              "tap minivmm-test0 is in use by another program: Device or resource busy");
  });
}

TEST(Tap, RefusesOtherInterfacesAndMissingOnes) {
  with_tap([] {
    auto loopback = Tap::open("lo");
    ASSERT_FALSE(loopback);
    EXPECT_EQ(loopback.error().text(),
              "interface lo is no tap with a single queue: Invalid argument");
    auto missing = Tap::open("missing0");
    ASSERT_FALSE(missing);
    EXPECT_EQ(missing.error().text(),
              "no tap missing0 (as root: ip tuntap add dev missing0 mode tap user USER; "
              "ip link set missing0 up)");
    EXPECT_EQ(::if_nametoindex("missing0"), 0u);  // none was made by asking
  });
}

TEST(Tap, RefusesANameTheKernelCannotHave) {
  for (auto name : {"", "sixteen-letters-"}) {
    auto tap = Tap::open(name);
    ASSERT_FALSE(tap);
    EXPECT_NE(tap.error().text().find("a name has 1 to 15 characters"), std::string::npos);
  }
}

}  // namespace
}  // namespace virtio
