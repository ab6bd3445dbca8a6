// kill -9 of the real program at random moments, while guests work and snapshots are taken as often
// as that goes: what `list` shows is good, the newest one restores, its guest finds everything in
// its place and continues the chain, until it is killed again.
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <regex>
#include <set>
#include <thread>

#include "tests/linux/vm_process.h"
#include "tests/payload/guest.h"
#include "tests/support/temporary_directory.h"

namespace {

using linux_tests::Finished;
using linux_tests::run_minivmm;
using linux_tests::VmProcess;
using Arguments = std::vector<std::string>;

constexpr int kKilled = 128 + SIGKILL;
constexpr int kBadInput = 2;
constexpr size_t kKept = 2;  // by the prune beside a machine

// MINIVMM_SEED repeats a run as far as times can be repeated.
uint64_t seed_of_this_run() {
  const char* given = std::getenv("MINIVMM_SEED");
  uint64_t seed = given != nullptr ? std::strtoull(given, nullptr, 0) : std::random_device{}();
  std::cout << "MINIVMM_SEED=" << seed << "\n";
  return seed;
}

struct Plan {
  std::string payload, command_line;
  Arguments disks = {};    // of `run` and of `restore`
  std::string input = {};  // what makes the guest come to its end
};

constexpr int kKillsAStore = 20;

// Ten stores, 200 kills: each begins a chain, whose first snapshots are killed too.
class KillTest : public testing::TestWithParam<int> {
 protected:
  void SetUp() override {
    if (auto why = payload_test::cannot_run()) GTEST_SKIP() << *why;
    // Killed machines leave their names there.
    ::setenv("XDG_RUNTIME_DIR", directory_.path().c_str(), 1);
  }

  void kill_again_and_again(const Plan& plan) {
    for (int i = 0; i < kKillsAStore; ++i) {
      SCOPED_TRACE("kill " + std::to_string(i));
      kill_once(plan);
      if (HasFailure()) return;
    }
    std::cout << restored_ << " restored, " << acknowledged_ << " snapshots said to be done, "
              << completed_ << " guests that came to their end\n";
    EXPECT_GT(restored_, kKillsAStore / 2u);
    EXPECT_GT(acknowledged_, kKillsAStore / 2u);
    if (!HasFailure()) expect_completes(plan);
  }

  // The newest snapshot's guest runs to its end, and has found everything right.
  void expect_completes(const Plan& plan) {
    VmProcess vm(restore_arguments(plan, ""));
    vm.send(plan.input);
    EXPECT_EQ(vm.wait(), 0) << vm.output();
    EXPECT_EQ(vm.output().find("FAIL"), std::string::npos) << vm.output();
    EXPECT_NE(vm.output().find(": done"), std::string::npos) << vm.output();
  }

  uint64_t random(uint64_t below) { return random_() % below; }

  test::TemporaryDirectory directory_;
  std::mt19937_64 random_{seed_of_this_run()};

 private:
  Arguments restore_arguments(const Plan& plan, const std::string& id) {
    Arguments arguments = {"restore", id.empty() ? store_ : store_ + "@" + id, "--name", "vm"};
    if (random(2) == 0) arguments.push_back("--eager");
    arguments.insert(arguments.end(), plan.disks.begin(), plan.disks.end());
    return arguments;
  }

  Arguments start_arguments(const Plan& plan) {
    Arguments arguments;
    asked_.clear();
    if (listed_.empty()) {
      arguments = {"run",
                   "--kernel",
                   MINIVMM_PAYLOAD_DIRECTORY "/" + plan.payload + ".elf",
                   "--cmdline",
                   plan.command_line,
                   "--memory",
                   "32M",
                   "--store",
                   store_,
                   "--name",
                   "vm"};
      arguments.insert(arguments.end(), plan.disks.begin(), plan.disks.end());
    } else {
      // Mostly the newest; an older one begins a branch.
      if (random(5) == 0) asked_ = listed_[random(listed_.size())];
      arguments = restore_arguments(plan, asked_);
      ++restored_;
    }
    arguments.insert(arguments.end(),
                     {"--snapshot-every", "20ms", "--max-pause", "20ms", "--log-level", "info"});
    if (random(3) != 0)
      arguments.insert(arguments.end(), {"--keep", std::to_string(1 + random(4))});
    return arguments;
  }

  void kill_once(const Plan& plan) {
    VmProcess vm(start_arguments(plan));
    // While the machine is being made, or after a few snapshots; it may come to its end before.
    for (uint64_t i = random(4); i > 0 && vm.expect(" pause "); --i) {
    }
    auto moment = std::chrono::microseconds(random(60'000));
    std::unique_ptr<VmProcess> prune;
    if (random(4) == 0) {
      prune =
          std::make_unique<VmProcess>(Arguments{"prune", store_, "--keep", std::to_string(kKept)});
    }
    std::this_thread::sleep_for(moment);
    vm.signal(SIGKILL);
    if (prune != nullptr) prune->signal(SIGKILL);
    auto status = vm.wait();
    // The prune may have been the first to take the snapshot that was asked for.
    auto says = [&](const char* text) {
      return vm.output().find(asked_ + text) != std::string::npos;
    };
    bool pruned = prune != nullptr && !asked_.empty() && status == kBadInput &&
                  newer_of_its_branch(asked_) >= kKept &&
                  (says(": No such file") || says(" was removed") || says("'; there"));
    if (status == 0 && vm.output().find(": done") != std::string::npos) {
      ++completed_;
    } else if (!pruned) {
      EXPECT_EQ(status, kKilled) << vm.output();
    }
    EXPECT_EQ(vm.output().find("FAIL"), std::string::npos) << vm.output();
    expect_store_is_good(vm.output());
    if (pruned) {
      EXPECT_EQ(std::ranges::find(listed_, asked_), listed_.end()) << vm.output();
    }
  }

  // Of what was listed last.
  size_t newer_of_its_branch(const std::string& id) const {
    auto at = std::ranges::find(listed_, id);
    return static_cast<size_t>(std::count_if(at, listed_.end(), [&](const std::string& other) {
      return other != id && branches_.at(other) == branches_.at(id);
    }));
  }

  void expect_store_is_good(const std::string& said) {
    if (!std::filesystem::exists(store_ + "/FORMAT")) {
      EXPECT_TRUE(listed_.empty());
      return;
    }
    Finished list = run_minivmm({"list", store_, "--json"});
    ASSERT_EQ(list.status, 0) << list.output;
    auto json = nlohmann::json::parse(list.output, nullptr, false);
    ASSERT_TRUE(json.is_object()) << list.output;
    std::vector<std::string> before = std::move(listed_);
    listed_.clear();
    std::set<std::string> continued;
    for (const auto& row : json["snapshots"]) {
      listed_.push_back(row.value("id", ""));
      branches_[listed_.back()] = row.value("branch", "");
      if (row["parent"].is_string()) continued.insert(row["parent"]);
    }
    // There are always some once there were any, and the last one that was said to be done is
    // there, or gave way to one that was done and not said yet.
    EXPECT_TRUE(before.empty() || !listed_.empty()) << list.output;
    std::string last;
    static const std::regex kDone("snapshot ([0-9a-f]+): (full|incremental)");
    for (std::sregex_iterator at(said.begin(), said.end(), kDone), end; at != end; ++at) {
      last = (*at)[1];
      ++acknowledged_;
    }
    if (!last.empty() && !continued.contains(last)) {
      EXPECT_NE(std::ranges::find(listed_, last), listed_.end()) << last << "\n" << list.output;
    }
    Finished verify = run_minivmm({"verify", store_});
    ASSERT_EQ(verify.status, 0) << verify.output << list.output;
  }

  std::string store_ = directory_.file("store");
  std::vector<std::string> listed_;              // oldest first
  std::map<std::string, std::string> branches_;  // of snapshots
  std::string asked_;                            // to be restored; empty: the newest
  uint64_t restored_ = 0, acknowledged_ = 0, completed_ = 0;
};

// Each page is checked before it is written again, and all of them in the end.
TEST_P(KillTest, AGuestThatWritesItsMemory) {
  kill_again_and_again(
      {.payload = "dirty",
       .command_line = "size=8M verify=1 rate=100000 order=random zero=20 unchanged=10",
       .input = "q"});
}

INSTANTIATE_TEST_SUITE_P(Stores, KillTest, testing::Range(0, 8));

class KillDiskTest : public KillTest {};

// What was written to the disk and flushed is read back and compared.
TEST_P(KillDiskTest, AGuestThatWritesItsDisk) {
  std::string disk = directory_.file("disk.img");
  {
    std::ofstream(disk).close();
  }
  std::filesystem::resize_file(disk, 64 << 20);
  kill_again_and_again({.payload = "virtio",
                        .command_line = "mode=blk ops=15000 qd=16 timeout=100",
                        .disks = {"--disk", disk}});
}

INSTANTIATE_TEST_SUITE_P(Stores, KillDiskTest, testing::Range(0, 2));

}  // namespace
