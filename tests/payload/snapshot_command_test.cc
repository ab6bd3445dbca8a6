// `minivmm snapshot` on a machine that runs: what its caller is told when it cancels, when the
// machine is to end with it, and when the machine dies meanwhile.
#include <gtest/gtest.h>
#include <signal.h>

#include <cstdlib>
#include <filesystem>
#include <memory>
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

class SnapshotCommandTest : public testing::Test {
 protected:
  void SetUp() override {
    if (auto why = payload_test::cannot_run()) GTEST_SKIP() << *why;
    ::setenv("XDG_RUNTIME_DIR", directory_.path().c_str(), 1);
  }

  std::unique_ptr<VmProcess> run(const std::string& command_line, const std::string& memory) {
    auto vm = std::make_unique<VmProcess>(std::vector<std::string>{
        "run", "--kernel", MINIVMM_PAYLOAD_DIRECTORY "/dirty.elf", "--cmdline", command_line,
        "--memory", memory, "--store", store_, "--name", "vm"});
    EXPECT_TRUE(vm->expect("dirty: round=")) << vm->output();
    return vm;
  }
  json listed() {
    Finished list = run_minivmm({"list", store_, "--json"});
    EXPECT_EQ(list.status, 0) << list.output;
    return json::parse(list.output, nullptr, false)["snapshots"];
  }
  size_t files(const char* folder) const {
    std::filesystem::directory_iterator all(store_ + "/" + folder);
    return static_cast<size_t>(std::distance(begin(all), end(all)));
  }
  // Begins a snapshot and returns when its pack is there: much is still to be copied then.
  std::unique_ptr<VmProcess> begin_snapshot() {
    size_t before = files("packs");
    auto snapshot =
        std::make_unique<VmProcess>(std::vector<std::string>{"snapshot", "vm", "--full", "--json"});
    for (int i = 0; i < 100'000 && files("packs") == before; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return snapshot;
  }
  // Interrupts a snapshot of much memory.
  void cancel_one() {
    auto snapshot = begin_snapshot();
    snapshot->signal(SIGINT);
    EXPECT_EQ(snapshot->wait(), 1) << snapshot->output();
    EXPECT_NE(snapshot->output().find("cancelled; the guest and the store are as before"),
              std::string::npos)
        << snapshot->output();
  }

  test::TemporaryDirectory directory_;
  std::string store_ = directory_.file("store");
};

TEST_F(SnapshotCommandTest, CtrlCLeavesGuestAndStoreAsTheyWere) {
  auto vm = run("size=128M rate=5000 verify=1 unchanged=50 zero=10", "256M");
  cancel_one();
  EXPECT_EQ(listed().size(), 0u);
  for (const char* folder : {"packs", "runs", "tmp", "snap"})
    EXPECT_EQ(files(folder), 0u) << folder;
  EXPECT_TRUE(vm->expect("dirty: round=")) << vm->output();

  Finished first = run_minivmm({"snapshot", "vm", "--max-pause", "20ms"});
  EXPECT_EQ(first.status, 0) << first.output;
  size_t packs = files("packs"), runs = files("runs");
  cancel_one();
  cancel_one();
  EXPECT_EQ(listed().size(), 1u);
  EXPECT_EQ(files("packs"), packs);
  EXPECT_EQ(files("runs"), runs);
  EXPECT_TRUE(vm->expect("dirty: round=")) << vm->output();

  // What the cancelled ones had taken from the dirty log is in the next one.
  Finished last = run_minivmm({"snapshot", "vm", "--stop", "--json", "--max-pause", "20ms"});
  EXPECT_EQ(last.status, 0) << last.output;
  EXPECT_EQ(json::parse(last.output, nullptr, false).value("kind", ""), "incremental");
  EXPECT_EQ(vm->wait(), kSnapshotted) << vm->output();
  VmProcess restored({"restore", store_, "--name", "restored"});
  restored.send("q");
  EXPECT_EQ(restored.wait(), 0) << restored.output();
  EXPECT_NE(restored.output().find("verified=yes"), std::string::npos) << restored.output();
}

TEST_F(SnapshotCommandTest, AMachineThatEndsWithItAnswersFirst) {
  for (int i = 0; i < 10; ++i) {
    std::filesystem::remove_all(store_);
    auto vm = run("size=1M rate=1000", "16M");
    Finished taken = run_minivmm({"snapshot", "vm", "--stop", "--json"});
    EXPECT_EQ(taken.status, 0) << taken.output;
    json result = json::parse(taken.output, nullptr, false);
    ASSERT_TRUE(result.is_object()) << taken.output;
    EXPECT_EQ(vm->wait(), kSnapshotted) << vm->output();
    json rows = listed();
    ASSERT_EQ(rows.size(), 1u);
    EXPECT_EQ(rows[0]["id"], result["id"]);
  }
}

// No snapshot, no success.
TEST_F(SnapshotCommandTest, AMachineThatDiesMeanwhileIsAnError) {
  auto vm = run("size=128M rate=100000", "256M");
  auto snapshot = begin_snapshot();
  vm->signal(SIGKILL);
  EXPECT_EQ(snapshot->wait(), 1) << snapshot->output();
  EXPECT_NE(snapshot->output().find("vm ended before it said"), std::string::npos)
      << snapshot->output();
  EXPECT_EQ(listed().size(), 0u);
}

}  // namespace
