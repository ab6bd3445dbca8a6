#include "devices/i8042.h"

#include <gtest/gtest.h>

#include "tests/support/registers.h"

namespace devices {
namespace {

TEST(I8042, ResetsByCommandOnly) {
  int resets = 0;
  I8042 controller([&] { resets++; });
  test::write_register<uint8_t>(controller, 0, 0xFE);  // data, not a command
  test::write_register<uint8_t>(controller, 4, 0xAA);
  EXPECT_EQ(resets, 0);
  test::write_register<uint8_t>(controller, 4, 0xFE);
  EXPECT_EQ(resets, 1);
  test::write_register<uint32_t>(controller, 1, 0xFE00'0000);
  EXPECT_EQ(resets, 2);
  test::write_register<uint32_t>(controller, 0, 0xFEFE'FEFE);
  EXPECT_EQ(resets, 2);
}

TEST(I8042, SaysThatItsBuffersAreEmpty) {
  I8042 controller([] {});
  EXPECT_EQ(test::read_register<uint8_t>(controller, 4), 0);
  EXPECT_EQ(test::read_register<uint8_t>(controller, 0), 0);
  EXPECT_EQ(test::read_register<uint32_t>(controller, 1), 0u);
}

}  // namespace
}  // namespace devices
