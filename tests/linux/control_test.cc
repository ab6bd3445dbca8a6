// The control socket and the commands that use it, against machines that run.

#include <gtest/gtest.h>

#include <filesystem>
#include <thread>

#include "cli/exit_status.h"
#include "tests/linux/guest.h"
#include "tests/linux/sockets.h"
#include "tests/linux/vm_process.h"

namespace linux_tests {
namespace {

// One counter of `minivmm stats`, "device.name" at the start of a line; -1 where it is not there.
long counter(const std::string& machine, const std::string& name) {
  Finished stats = run_minivmm({"stats", machine});
  size_t at = stats.output.find(name + " ");
  return at == std::string::npos ? -1 : std::stol(stats.output.substr(at + name.size()));
}

// Asks until `ask` gives what is wanted; false when patience ends.
template <typename Ask>
bool eventually(Ask ask) {
  auto deadline = std::chrono::steady_clock::now() + kPatience;
  while (!ask()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  return true;
}

TEST(ControlTest, PauseResumeAndStopByName) {
  VmProcess vm({"run", "--kernel", MINIVMM_PAYLOADS "/dirty.elf", "--cmdline",
                "size=1M rate=1000 verify=1", "--name", "control-test"});
  ASSERT_TRUE(vm.expect("dirty: start")) << vm.output();
  EXPECT_NE(run_minivmm({"ps"}).output.find("control-test"), std::string::npos);

  ASSERT_EQ(run_minivmm({"pause", "control-test"}).status, 0);
  long paused = counter("control-test", "vcpu0.exits");
  ASSERT_GT(paused, 0);
  for (int i = 0; i < 5; ++i) EXPECT_EQ(counter("control-test", "vcpu0.exits"), paused);
  EXPECT_NE(run_minivmm({"ps"}).output.find("Paused"), std::string::npos);

  ASSERT_EQ(run_minivmm({"resume", "control-test"}).status, 0);
  EXPECT_TRUE(eventually([&] { return counter("control-test", "vcpu0.exits") > paused; }));

  ASSERT_EQ(run_minivmm({"stop", "control-test", "--force"}).status, 0);
  EXPECT_EQ(vm.wait(), cli::kStopped) << vm.output();
  EXPECT_EQ(run_minivmm({"ps"}).output.find("control-test"), std::string::npos);
  Finished gone = run_minivmm({"pause", "control-test"});
  EXPECT_EQ(gone.status, cli::kFailure);
  EXPECT_NE(gone.output.find("control-test"), std::string::npos) << gone.output;
}

TEST(ControlTest, ANameIsTakenOnce) {
  VmProcess vm({"run", "--kernel", MINIVMM_PAYLOADS "/dirty.elf", "--cmdline", "size=1M rate=1000",
                "--name", "once"});
  ASSERT_TRUE(vm.expect("dirty: start")) << vm.output();
  Finished second =
      run_minivmm({"run", "--kernel", MINIVMM_PAYLOADS "/hello.elf", "--name", "once"});
  EXPECT_EQ(second.status, cli::kBadInput) << second.output;
  EXPECT_NE(second.output.find("once"), std::string::npos) << second.output;
}

TEST(ControlTest, StopPressesThePowerButton) {
  Guest guest;
  guest.script("echo waiting; sleep 600\n");
  VmProcess vm(guest.run({"--name", "stop-test"}));
  ASSERT_TRUE(vm.expect("waiting")) << vm.output();
  EXPECT_EQ(run_minivmm({"stop", "stop-test", "--timeout", "240"}).status, 0);
  EXPECT_TRUE(vm.expect("minivmm-init: power button")) << vm.output();
  EXPECT_EQ(vm.wait(), 0) << vm.output();
}

TEST(ControlTest, TheBalloonTakesAndGivesBackMemory) {
  Guest guest;
  guest.script("echo waiting; sleep 600\n");
  std::string socket = guest.path("api.sock");
  VmProcess vm(guest.run({"--balloon", "--name", "balloon-test", "--api-socket", socket}));
  ASSERT_TRUE(vm.expect("waiting")) << vm.output();
  auto set = [&](int mib) {
    Socket api = Socket::connect_unix(socket);
    std::string body = "{\"amount_mib\": " + std::to_string(mib) + "}";
    api.send("PATCH /balloon HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n" +
             ("Content-Length: " + std::to_string(body.size())) + "\r\n\r\n" + body);
    return api.read_line();
  };
  EXPECT_EQ(set(64), "HTTP/1.1 204 No Content\r\n");
  EXPECT_TRUE(eventually([&] { return counter("balloon-test", "balloon.actual_mib") == 64; }));
  EXPECT_GE(counter("balloon-test", "balloon.inflated_pages"), 64 * 256);
  EXPECT_EQ(set(16), "HTTP/1.1 204 No Content\r\n");
  EXPECT_TRUE(eventually([&] { return counter("balloon-test", "balloon.actual_mib") == 16; }));
  EXPECT_EQ(run_minivmm({"stop", "balloon-test", "--force"}).status, 0);
  EXPECT_EQ(vm.wait(), cli::kStopped) << vm.output();
}

}  // namespace
}  // namespace linux_tests
