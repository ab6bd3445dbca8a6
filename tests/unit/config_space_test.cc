#include "devices/pci/config_space.h"

#include <gtest/gtest.h>

#include <vector>

#include "vmm/base/endian.h"

namespace pci {
namespace {

ConfigSpace make() {
  return ConfigSpace({.vendor = 0x1AF4,
                      .device = 0x1042,
                      .revision = 1,
                      .class_code = 0x018000,
                      .subsystem_vendor = 0x1AF4,
                      .subsystem = 0x40});
}

template <typename T>
T read(const ConfigSpace& config, uint32_t offset) {
  uint8_t data[sizeof(T)];
  config.read(offset, data);
  return base::load_le<T>(data);
}
template <typename T>
void write(ConfigSpace& config, uint32_t offset, T value) {
  uint8_t data[sizeof(T)];
  base::store_le<T>(data, 0, value);
  config.write(offset, data);
}

TEST(ConfigSpace, ShowsWhoItIs) {
  ConfigSpace config = make();
  EXPECT_EQ(read<uint32_t>(config, 0x00), 0x10421AF4u);
  EXPECT_EQ(read<uint32_t>(config, 0x08), 0x01800001u);
  EXPECT_EQ(read<uint32_t>(config, 0x2C), 0x00401AF4u);
  EXPECT_EQ(read<uint8_t>(config, 0x0E), 0);   // header type 0, one function
  EXPECT_EQ(read<uint8_t>(config, 0x3D), 0);   // no interrupt pin
  EXPECT_EQ(read<uint8_t>(config, 0x34), 0);   // no capabilities
  EXPECT_EQ(read<uint16_t>(config, 0x06), 0);  // and so says the status
}

TEST(ConfigSpace, ReadsTheSameByAnyWidth) {
  ConfigSpace config = make();
  EXPECT_EQ(read<uint16_t>(config, 0x02), 0x1042);
  EXPECT_EQ(read<uint8_t>(config, 0x03), 0x10);
  EXPECT_EQ(read<uint16_t>(config, 0x01), 0x421A);
}

TEST(ConfigSpace, IdentityAndBarsThatAreNotThereCannotBeWritten) {
  ConfigSpace config = make();
  std::vector<uint8_t> before(256), after(256), ones(256, 0xFF);
  config.read(0, before);
  config.write(0, ones);
  config.read(0, after);
  for (size_t i = 0; i < 256; ++i) {
    if (i == 4 || i == 5 || i == 0x3C) continue;  // command, interrupt line
    EXPECT_EQ(after[i], before[i]) << "byte " << i;
  }
  EXPECT_EQ(read<uint16_t>(config, kCommand),
            kCommandMemory | kCommandBusMaster | kCommandIntxDisable);
  EXPECT_EQ(read<uint8_t>(config, 0x3C), 0xFF);
}

TEST(ConfigSpace, BarSaysItsSizeAndMoves) {
  ConfigSpace config = make();
  config.set_bar0(0xC0008000, 0x8000);
  EXPECT_TRUE(config.memory_enabled());
  EXPECT_EQ(config.bar0(), 0xC0008000u);
  // How every system sizes a BAR: all ones, then see what stuck.
  write<uint32_t>(config, kBar0, 0xFFFFFFFF);
  EXPECT_EQ(read<uint32_t>(config, kBar0), 0xFFFF8000u);
  write<uint32_t>(config, kBar0, 0xD0001234);
  EXPECT_EQ(config.bar0(), 0xD0000000u);
  write<uint8_t>(config, kBar0 + 3, 0xC1);  // one byte of it
  EXPECT_EQ(config.bar0(), 0xC1000000u);
  write<uint32_t>(config, kBar0 + 4, 0xFFFFFFFF);
  EXPECT_EQ(read<uint32_t>(config, kBar0 + 4), 0u);  // no BAR 1
  write<uint16_t>(config, kCommand, 0);
  EXPECT_FALSE(config.memory_enabled());
}

TEST(ConfigSpace, CapabilitiesFormAList) {
  ConfigSpace config = make();
  const uint8_t first[] = {0x09, 0xFF, 16, 1, 0xAB};
  const uint8_t second[] = {0x11, 0, 7, 0};
  uint8_t at1 = config.add_capability(first);
  uint8_t at2 = config.add_capability(second);
  EXPECT_EQ(at1, 0x40);
  EXPECT_EQ(at2, 0x48);  // on the next multiple of four
  EXPECT_EQ(read<uint16_t>(config, 0x06), 0x10);
  EXPECT_EQ(read<uint8_t>(config, 0x34), at1);
  EXPECT_EQ(read<uint8_t>(config, at1), 0x09);
  EXPECT_EQ(read<uint8_t>(config, at1 + 1u), at2);
  EXPECT_EQ(read<uint8_t>(config, at1 + 4u), 0xAB);
  EXPECT_EQ(read<uint8_t>(config, at2 + 1u), 0);
}

TEST(ConfigSpace, CapabilitiesAreReadOnlyButForTheBitsAllowed) {
  ConfigSpace config = make();
  const uint8_t body[] = {0x11, 0, 0x34, 0x02};
  uint8_t at = config.add_capability(body);
  write<uint32_t>(config, at, 0xFFFFFFFF);
  EXPECT_EQ(read<uint32_t>(config, at), 0x02340011u);
  const uint8_t mask[] = {0, 0xC0};
  config.allow_writes(at + 2u, mask);
  write<uint32_t>(config, at, 0xFFFFFFFF);
  EXPECT_EQ(read<uint32_t>(config, at), 0xC2340011u);
  write<uint16_t>(config, at + 2u, 0);
  EXPECT_EQ(config.get16(at + 2u), 0x0234);
}

TEST(ConfigSpace, AccessesThatLeaveItDoNothing) {
  ConfigSpace config = make();
  std::vector<uint8_t> data(8, 0xAA);
  config.read(0xFC, data);
  EXPECT_EQ(data, std::vector<uint8_t>(8, 0));
  config.write(0xFE, data);
  config.write(0x1000, data);
  config.read(0x1000, data);
  EXPECT_EQ(data, std::vector<uint8_t>(8, 0));
}

}  // namespace
}  // namespace pci
