#include "cli/clones.h"

#include <gtest/gtest.h>

namespace cli {
namespace {

RestoreOptions asked() {
  RestoreOptions options;
  options.host.name = "warm";
  return options;
}

std::string error_of(const RestoreOptions& options, uint32_t number) {
  auto own = options_of_clone(options, number);
  return own ? "" : own.error().text();
}

TEST(Clones, AreNumberedInWhatTheyCannotShare) {
  RestoreOptions options = asked();
  options.vsock_path = "/tmp/vsock-%";
  options.console_file = "log/%.txt";
  options.host.nets.push_back({.tap = "vm%", .host_forwards = {}, .mac = {}});
  options.host.nets.push_back(*parse_net("user,hostfwd=tcp::2200-22,hostfwd=udp::5000-53"));
  options.host.nets.push_back(*parse_net("user,mac=52:54:00:12:34:fa"));
  options.vsock_cid = 100;
  auto own = options_of_clone(options, 12);
  ASSERT_TRUE(own) << own.error().text();
  EXPECT_EQ(own->host.name, "warm-12");
  EXPECT_EQ(own->vsock_path, "/tmp/vsock-12");
  EXPECT_EQ(own->console_file, "log/12.txt");
  EXPECT_EQ(own->host.nets[0].tap, "vm12");
  EXPECT_EQ(own->host.nets[1].host_forwards[0].host_port, 2211);
  EXPECT_EQ(own->host.nets[1].host_forwards[0].guest_port, 22);
  EXPECT_EQ(own->host.nets[1].host_forwards[1].host_port, 5011);
  EXPECT_FALSE(own->host.nets[1].mac);
  EXPECT_EQ(virtio::format_mac(*own->host.nets[2].mac), "52:54:00:12:35:05");
  EXPECT_EQ(own->vsock_cid, 111u);
}

TEST(Clones, AreRefusedWhereTwoWouldMeet) {
  RestoreOptions options = asked();
  options.vsock_path = "/tmp/vsock";
  EXPECT_NE(error_of(options, 1).find("--vsock-path"), std::string::npos);
  options = asked();
  options.host.nets.push_back({.tap = "vm0", .host_forwards = {}, .mac = {}});
  EXPECT_NE(error_of(options, 1).find("a tap each"), std::string::npos);
  options = asked();
  options.host.nets.push_back(*parse_net("user,hostfwd=tcp::65530-22"));
  EXPECT_EQ(error_of(options, 6), "");
  EXPECT_NE(error_of(options, 7).find("port 65536"), std::string::npos);
  options = asked();
  options.host.nets.push_back(*parse_net("user,mac=52:54:00:ff:ff:fe"));
  EXPECT_EQ(error_of(options, 2), "");
  EXPECT_NE(error_of(options, 3).find("MAC"), std::string::npos);
  options = asked();
  options.vsock_cid = 0xFFFF'FFFD;
  EXPECT_EQ(error_of(options, 2), "");
  EXPECT_NE(error_of(options, 3).find("--vsock-cid"), std::string::npos);
}

}  // namespace
}  // namespace cli
