// `minivmm restore --paused`: a machine that is whole and answers, and whose guest has not run when
// `minivmm resume` lets it go on.
#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <thread>

#include "tests/linux/vm_process.h"
#include "tests/payload/guest.h"
#include "tests/support/temporary_directory.h"

namespace {

using linux_tests::Finished;
using linux_tests::run_minivmm;
using linux_tests::VmProcess;
using nlohmann::json;

constexpr int kSnapshotted = 197;

class RestorePausedTest : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (auto why = payload_test::cannot_run()) GTEST_SKIP() << *why;
    ::setenv("XDG_RUNTIME_DIR", directory_.path().c_str(), 1);
  }

  // As `minivmm ps` says; "" for a machine that is not there.
  static std::string state_of(const std::string& name) {
    Finished listed = run_minivmm({"ps", "--json"});
    const json machines = json::parse(listed.output, nullptr, false);
    EXPECT_TRUE(machines.is_array()) << listed.output;
    for (const json& machine : machines) {
      if (machine.value("name", "") == name) return machine.value("state", "");
    }
    return "";
  }
  // A machine has its name before it is complete.
  static std::string first_state_of(const std::string& name) {
    const auto end = std::chrono::steady_clock::now() + linux_tests::kPatience;
    for (;;) {
      std::string state = state_of(name);
      bool answers = !state.empty() && state != "No answer" && state != "Not started";
      if (answers || std::chrono::steady_clock::now() > end) return state;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  }
  static std::string exits_of(const std::string& name) {
    Finished stats = run_minivmm({"stats", name});
    const std::string key = "vcpu0.exits ";
    size_t at = stats.output.find(key);
    if (at == std::string::npos) return "none: " + stats.output;
    at += key.size();
    return stats.output.substr(at, stats.output.find('\n', at) - at);
  }
  static json snapshot_of(const std::string& name) {
    Finished taken = run_minivmm({"snapshot", name, "--json"});
    EXPECT_EQ(taken.status, 0) << taken.output;
    return json::parse(taken.output, nullptr, false);
  }

  test::TemporaryDirectory directory_;
  std::string store_ = directory_.file("store");
};

TEST_P(RestorePausedTest, TheGuestRunsFromResumeOn) {
  {
    VmProcess vm({"run", "--kernel", MINIVMM_PAYLOAD_DIRECTORY "/dirty.elf", "--cmdline",
                  "size=8M rate=20000 verify=1", "--memory", "64M", "--store", store_, "--name",
                  "vm"});
    ASSERT_TRUE(vm.expect("dirty: round=")) << vm.output();
    Finished taken = run_minivmm({"snapshot", "vm", "--stop"});
    EXPECT_EQ(taken.status, 0) << taken.output;
    EXPECT_EQ(vm.wait(), kSnapshotted);
  }
  VmProcess vm({"restore", store_, GetParam(), "--paused", "--name", "restored"});
  ASSERT_EQ(first_state_of("restored"), "Paused") << vm.output();
  const std::string exits = exits_of("restored");
  // Its next snapshot differs from the one it came from by what a restore itself writes: a page at
  // most, the generation ID's. The guest writes twenty a millisecond.
  for (int i = 0; i < 3; ++i) {
    const json again = snapshot_of("restored");
    EXPECT_EQ(again.value("kind", ""), "incremental");
    EXPECT_LE(again.value("pages", 99) + again.value("zero_pages", 99), i == 0 ? 1 : 0) << again;
  }
  EXPECT_EQ(exits_of("restored"), exits);
  EXPECT_EQ(state_of("restored"), "Paused");
  vm.read_available();
  EXPECT_EQ(vm.output().find("dirty:"), std::string::npos) << vm.output();

  EXPECT_EQ(run_minivmm({"resume", "restored"}).status, 0);
  EXPECT_EQ(state_of("restored"), "Running");
  EXPECT_TRUE(vm.expect("dirty: round=")) << vm.output();
  EXPECT_NE(exits_of("restored"), exits);
  EXPECT_GT(snapshot_of("restored").value("pages", 0), 1);
  vm.send("q");
  EXPECT_EQ(vm.wait(), 0) << vm.output();
  EXPECT_NE(vm.output().find("verified=yes"), std::string::npos) << vm.output();
}

INSTANTIATE_TEST_SUITE_P(Ways, RestorePausedTest, testing::Values("--eager", "--lazy"),
                         [](const auto& way) { return std::string(way.param + 2); });

}  // namespace
