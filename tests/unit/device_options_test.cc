#include "cli/device_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace cli {
namespace {

using testing::HasSubstr;

std::string error_of(const auto& result) { return result ? "no error" : result.error().text(); }

TEST(DiskOption, HasAPathAndFlags) {
  DiskOption plain = *parse_disk("root.img");
  EXPECT_EQ(plain.path, "root.img");
  EXPECT_FALSE(plain.read_only);
  EXPECT_EQ(plain.serial, "");

  EXPECT_FALSE(plain.raw);
  DiskOption full = *parse_disk("/a/b.img,ro,raw,serial=disk-1");
  EXPECT_TRUE(full.raw);
  EXPECT_EQ(full.path, "/a/b.img");
  EXPECT_TRUE(full.read_only);
  EXPECT_EQ(full.serial, "disk-1");
}

TEST(DiskOption, ADoubledCommaBelongsToThePath) {
  DiskOption disk = *parse_disk("a,,b.img,ro");
  EXPECT_EQ(disk.path, "a,b.img");
  EXPECT_TRUE(disk.read_only);
}

TEST(DiskOption, RefusesWhatItDoesNotKnow) {
  EXPECT_THAT(error_of(parse_disk("")), HasSubstr("no path"));
  EXPECT_THAT(error_of(parse_disk(",ro")), HasSubstr("no path"));
  EXPECT_THAT(error_of(parse_disk("a,rw")), HasSubstr("'rw' is not known"));
  EXPECT_THAT(error_of(parse_disk("a,")), HasSubstr("'' is not known"));
  EXPECT_THAT(error_of(parse_disk("a,serial")), HasSubstr("'serial' is not known"));
}

TEST(DeviceOptions, OneOfEach) {
  EXPECT_THAT(error_of(parse_disk("a,serial=x,serial=y")), HasSubstr("serial is given twice"));
  EXPECT_THAT(error_of(parse_net("user,mac=52:54:00:12:ab:01,mac=52:54:00:12:ab:02")),
              HasSubstr("mac is given twice"));
  EXPECT_THAT(error_of(parse_vsock("cid=3,path=/a,cid=4")), HasSubstr("cid is given twice"));
  EXPECT_THAT(error_of(parse_vsock("cid=3,path=/a,path=/b")), HasSubstr("path is given twice"));
}

TEST(DiskOption, BoundsTheSerialNumber) {
  EXPECT_EQ(parse_disk("a,serial=12345678901234567890")->serial.size(), 20u);
  EXPECT_THAT(error_of(parse_disk("a,serial=123456789012345678901")), HasSubstr("1 to 20"));
  EXPECT_THAT(error_of(parse_disk("a,serial=")), HasSubstr("1 to 20"));
  EXPECT_THAT(error_of(parse_disk("a,serial=x y")), HasSubstr("printable"));
}

TEST(NetOption, UserModeForwardsPorts) {
  NetOption net = *parse_net("user,hostfwd=tcp::2222-22,hostfwd=udp:0.0.0.0:53-5353");
  EXPECT_EQ(net.tap, "");
  ASSERT_EQ(net.host_forwards.size(), 2u);
  EXPECT_FALSE(net.host_forwards[0].udp);
  EXPECT_EQ(net.host_forwards[0].host_address.s_addr, htonl(INADDR_LOOPBACK));
  EXPECT_EQ(net.host_forwards[0].host_port, 2222);
  EXPECT_EQ(net.host_forwards[0].guest_port, 22);
  EXPECT_TRUE(net.host_forwards[1].udp);
  EXPECT_EQ(net.host_forwards[1].host_address.s_addr, htonl(INADDR_ANY));
  EXPECT_FALSE(net.mac);
}

TEST(NetOption, TapHasANameAndAMac) {
  NetOption net = *parse_net("tap=tap0,mac=52:54:00:12:ab:FF");
  EXPECT_EQ(net.tap, "tap0");
  EXPECT_EQ(*net.mac, (virtio::MacAddress{0x52, 0x54, 0, 0x12, 0xAB, 0xFF}));
}

TEST(NetOption, RefusesWhatItDoesNotKnow) {
  EXPECT_THAT(error_of(parse_net("")), HasSubstr("use user or tap=NAME"));
  EXPECT_THAT(error_of(parse_net("bridge")), HasSubstr("use user or tap=NAME"));
  EXPECT_THAT(error_of(parse_net("tap=")), HasSubstr("no interface name"));
  EXPECT_THAT(error_of(parse_net("tap=sixteen-letters-")), HasSubstr("no interface name"));
  EXPECT_THAT(error_of(parse_net("tap=../x")), HasSubstr("no interface name"));
  EXPECT_THAT(error_of(parse_net("user,x=1")), HasSubstr("'x=1' is not known"));
  EXPECT_THAT(error_of(parse_net("tap=t,hostfwd=tcp::1-1")), HasSubstr("is not known: use mac"));
}

TEST(NetOption, SaysWhatIsWrongWithAForwardOrAMac) {
  EXPECT_THAT(error_of(parse_net("user,hostfwd=sctp::1-2")), HasSubstr("hostfwd=sctp::1-2"));
  EXPECT_THAT(error_of(parse_net("user,mac=01:00:5e:00:00:01")), HasSubstr("01:00:5e:00:00:01"));
}

TEST(VsockOption, NeedsBothParts) {
  VsockOption vsock = *parse_vsock("path=/run/v.sock,cid=3");
  EXPECT_EQ(vsock.cid, 3u);
  EXPECT_EQ(vsock.path, "/run/v.sock");
  EXPECT_EQ(parse_vsock("cid=4294967294,path=v")->cid, 4294967294u);

  EXPECT_THAT(error_of(parse_vsock("cid=3")), HasSubstr("no path"));
  EXPECT_THAT(error_of(parse_vsock("path=v")), HasSubstr("no cid"));
  EXPECT_THAT(error_of(parse_vsock("cid=2,path=v")), HasSubstr("from 3"));
  EXPECT_THAT(error_of(parse_vsock("cid=4294967295,path=v")), HasSubstr("to 4294967294"));
  EXPECT_THAT(error_of(parse_vsock("cid=3,path=v,x")), HasSubstr("'x' is not known"));
  EXPECT_THAT(error_of(parse_vsock("cid=3,path=" + std::string(108, 'p'))), HasSubstr("too long"));
}

}  // namespace
}  // namespace cli
