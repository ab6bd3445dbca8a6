#include "devices/virtio/mac_address.h"

#include <gtest/gtest.h>

namespace virtio {
namespace {

TEST(MacAddress, IsReadAndWritten) {
  auto mac = parse_mac("52:54:00:aB:0c:FF");
  ASSERT_TRUE(mac);
  EXPECT_EQ(*mac, (MacAddress{0x52, 0x54, 0x00, 0xAB, 0x0C, 0xFF}));
  EXPECT_EQ(format_mac(*mac), "52:54:00:ab:0c:ff");
}

TEST(MacAddress, RefusesWhatIsNone) {
  for (auto text :
       {"", "52:54:00:12:34", "52:54:00:12:34:5", "52:54:00:12:34:56:", "+2:54:00:12:34:56",
        "52-54-00-12-34-56", "52:54:00:12:34:g6", "00:00:00:00:00:00"}) {
    EXPECT_FALSE(parse_mac(text)) << text;
  }
  auto multicast = parse_mac("01:00:5e:00:00:01");
  ASSERT_FALSE(multicast);
  EXPECT_EQ(
      multicast.error().text(),
      "MAC address '01:00:5e:00:00:01' is a multicast address: write one as 52:54:00:12:34:56");
}

TEST(MacAddress, IsDerivedFromAName) {
  EXPECT_EQ(derive_mac("job1/net0"), derive_mac("job1/net0"));
  EXPECT_NE(derive_mac("job1/net0"), derive_mac("job1/net1"));
  EXPECT_TRUE(parse_mac(format_mac(derive_mac("job1/net0"))));
}

}  // namespace
}  // namespace virtio
