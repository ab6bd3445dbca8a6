// Every way a run ends, and the status the shell gets (cli/exit_status.h).

#include <gtest/gtest.h>
#include <signal.h>

#include <filesystem>

#include "cli/exit_status.h"
#include "tests/linux/guest.h"
#include "tests/linux/vm_process.h"

namespace linux_tests {
namespace {

TEST(PowerTest, RebootEndsWithTheResetStatus) {
  Guest guest;
  guest.script("reboot; sleep 60\n");
  VmProcess vm(guest.run());
  EXPECT_EQ(vm.wait(), cli::kGuestReset) << vm.output();
}

TEST(PowerTest, PanicEndsWithTheResetStatus) {
  Guest guest;
  guest.script("echo c >/proc/sysrq-trigger; sleep 60\n");
  VmProcess vm(guest.run());
  EXPECT_TRUE(vm.expect("Kernel panic")) << vm.output();
  auto status = vm.wait();
  // With the pvpanic driver the kernel says that it panicked, without it only that it resets.
  EXPECT_TRUE(status == cli::kGuestPanic || status == cli::kGuestReset) << vm.output();
}

TEST(PowerTest, PanicIsReportedByPvpanic) {
  Guest guest;
  guest.script("modprobe pvpanic-mmio && echo loaded\necho c >/proc/sysrq-trigger; sleep 60\n");
  VmProcess vm(guest.run());
  EXPECT_TRUE(vm.expect("loaded")) << vm.output();
  EXPECT_EQ(vm.wait(), cli::kGuestPanic) << vm.output();
}

TEST(PowerTest, TheExitPortGivesTheGuestsOwnStatus) {
  Guest guest;
  guest.script("exit-machine 42; sleep 60\n");
  VmProcess vm(guest.run());
  EXPECT_EQ(vm.wait(), 42) << vm.output();
}

TEST(PowerTest, TermPressesThePowerButton) {
  Guest guest;
  guest.script("echo waiting; sleep 600\n");
  VmProcess vm(guest.run());
  ASSERT_TRUE(vm.expect("waiting")) << vm.output();
  vm.signal(SIGTERM);
  EXPECT_TRUE(vm.expect("minivmm-init: power button")) << vm.output();
  EXPECT_EQ(vm.wait(), 0) << vm.output();
}

TEST(PowerTest, TheSecondTermStops) {
  // A guest that does not listen to the button.
  VmProcess vm(
      {"run", "--kernel", MINIVMM_PAYLOADS "/dirty.elf", "--cmdline", "size=1M rate=1000"});
  ASSERT_TRUE(vm.expect("dirty: start")) << vm.output();
  vm.signal(SIGTERM);
  // Two signals that wait at once are one.
  ASSERT_TRUE(vm.expect("a second signal")) << vm.output();
  vm.signal(SIGTERM);
  EXPECT_EQ(vm.wait(), cli::kStopped) << vm.output();
}

TEST(PowerTest, CtrlAXLeavesTheConsole) {
  Guest guest;
  VmProcess vm(guest.run(), VmProcess::Input::kTerminal);
  ASSERT_TRUE(vm.expect("minivmm-init: ready")) << vm.output();
  vm.send("echo $((6 * 7))\n");
  EXPECT_TRUE(vm.expect("42")) << vm.output();
  vm.send("\x01x");
  EXPECT_EQ(vm.wait(), cli::kStopped) << vm.output();
}

}  // namespace
}  // namespace linux_tests
