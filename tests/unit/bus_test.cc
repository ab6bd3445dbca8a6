#include "vmm/bus.h"

#include <gtest/gtest.h>

#include <array>

namespace vmm {
namespace {

struct Recorder : BusDevice {
  uint64_t offset = ~0ull;
  size_t size = 0;
  void read(uint64_t at, std::span<uint8_t> data) override {
    offset = at;
    size = data.size();
    for (auto& byte : data) byte = 0x5A;
  }
  void write(uint64_t at, std::span<const uint8_t> data) override {
    offset = at;
    size = data.size();
  }
};

TEST(Bus, GivesADeviceOffsetsIntoItsRange) {
  Bus bus;
  Recorder a, b;
  ASSERT_TRUE(bus.attach(0x1000, 0x100, a, "a"));
  ASSERT_TRUE(bus.attach(0x1100, 0x10, b, "b"));
  std::array<uint8_t, 4> data{};
  EXPECT_TRUE(bus.read(0x10FC, data));
  EXPECT_EQ(a.offset, 0xFCu);
  EXPECT_EQ(data[3], 0x5A);
  EXPECT_TRUE(bus.write(0x1104, data));
  EXPECT_EQ(b.offset, 4u);
  EXPECT_EQ(b.size, 4u);
}

TEST(Bus, ReadsAllOnesWhereNobodyIs) {
  Bus bus;
  Recorder a;
  ASSERT_TRUE(bus.attach(0x1000, 0x10, a, "a"));
  std::array<uint8_t, 4> data{};
  EXPECT_FALSE(bus.read(0x0FFE, data));  // begins before the range
  EXPECT_FALSE(bus.read(0x100E, data));  // leaves it
  EXPECT_FALSE(bus.read(0x1010, data));
  EXPECT_EQ(data, (std::array<uint8_t, 4>{0xFF, 0xFF, 0xFF, 0xFF}));
  EXPECT_EQ(a.offset, ~0ull);
}

TEST(Bus, RefusesOverlapByName) {
  Bus bus;
  Recorder a;
  ASSERT_TRUE(bus.attach(0x1000, 0x10, a, "serial"));
  EXPECT_FALSE(bus.attach(0x100F, 1, a, "b"));
  EXPECT_FALSE(bus.attach(0x0FF1, 0x10, a, "b"));
  EXPECT_FALSE(bus.attach(0x0F00, 0x1000, a, "b"));
  auto refused = bus.attach(0x1004, 4, a, "b");
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().text().find("serial"), std::string::npos);
  EXPECT_TRUE(bus.attach(0x0FF0, 0x10, a, "before"));
  EXPECT_TRUE(bus.attach(0x1010, 0x10, a, "after"));
  EXPECT_FALSE(bus.attach(~0ull, 2, a, "wraps"));
  bus.detach(0x1000);
  EXPECT_TRUE(bus.attach(0x1000, 0x10, a, "again"));
}

}  // namespace
}  // namespace vmm
