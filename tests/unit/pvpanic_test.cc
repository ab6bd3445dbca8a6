#include "devices/pvpanic.h"

#include <gtest/gtest.h>

#include "tests/support/registers.h"

namespace devices {
namespace {

TEST(Pvpanic, TellsOfAPanicOnly) {
  int panics = 0;
  Pvpanic device([&] { panics++; });
  EXPECT_EQ(test::read_register<uint8_t>(device, 0), 0x03);
  test::write_register<uint8_t>(device, 0, 0x02);
  test::write_register<uint8_t>(device, 0, 0x04);
  EXPECT_EQ(panics, 0);
  test::write_register<uint8_t>(device, 0, 0x01);
  EXPECT_EQ(panics, 1);
}

}  // namespace
}  // namespace devices
