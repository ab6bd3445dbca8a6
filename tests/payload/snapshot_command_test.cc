// `minivmm snapshot` on a machine that runs: what its caller is told when it cancels, when the
// machine is to end with it, and when the machine dies meanwhile.
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
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
using nlohmann::json;

constexpr int kSnapshotted = 197;

class SnapshotCommandTest : public testing::Test {
 protected:
  void SetUp() override {
    if (auto why = payload_test::cannot_run()) GTEST_SKIP() << *why;
    ::setenv("XDG_RUNTIME_DIR", directory_.path().c_str(), 1);
  }

  std::unique_ptr<VmProcess> run(const std::string& command_line, const std::string& memory,
                                 const std::vector<std::string>& more = {}) {
    std::vector<std::string> arguments{
        "run",       "--kernel",   MINIVMM_PAYLOAD_DIRECTORY "/dirty.elf",
        "--cmdline", command_line, "--memory",
        memory,      "--store",    store_,
        "--name",    "vm"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    auto vm = std::make_unique<VmProcess>(arguments);
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
  uint64_t bytes_in(std::initializer_list<const char*> folders) const {
    uint64_t bytes = 0;
    for (const char* folder : folders) {
      for (const auto& file : std::filesystem::directory_iterator(store_ + "/" + folder)) {
        bytes += file.file_size();
      }
    }
    return bytes;
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

  // Takes one with these options and returns its result.
  static json take(const std::vector<std::string>& options) {
    std::vector<std::string> arguments{"snapshot", "vm", "--json"};
    arguments.insert(arguments.end(), options.begin(), options.end());
    Finished taken = run_minivmm(arguments);
    EXPECT_EQ(taken.status, 0) << taken.output;
    json result = json::parse(taken.output, nullptr, false);
    EXPECT_TRUE(result.is_object()) << taken.output;
    return result.is_object() ? result : json::object();
  }
  // The guest of that snapshot goes on, and in the end finds every page right.
  void expect_restores(const std::string& id) {
    SCOPED_TRACE(id);
    for (const char* how : {"--eager", "--lazy"}) {
      VmProcess restored({"restore", store_ + "@" + id, how, "--name", "restored"});
      restored.send("q");
      EXPECT_EQ(restored.wait(), 0) << restored.output();
      EXPECT_NE(restored.output().find("verified=yes"), std::string::npos) << restored.output();
    }
  }

  test::TemporaryDirectory directory_;
  std::string store_ = directory_.file("store");
};

// What it prints for programs is what `list` and `inspect` say of the snapshot, and the files.
TEST_F(SnapshotCommandTest, ItsResultIsWhatTheStoreHolds) {
  auto vm = run("size=8M rate=20000 zero=20 verify=1", "64M");
  for (size_t i = 0; i < 3; ++i) {
    SCOPED_TRACE(i);
    Finished taken = run_minivmm({"snapshot", "vm", "--json"});
    ASSERT_EQ(taken.status, 0) << taken.output;
    const json result = json::parse(taken.output, nullptr, false);
    ASSERT_TRUE(result.is_object()) << taken.output;
    const json rows = listed();
    ASSERT_EQ(rows.size(), i + 1);
    const json row = rows[i];
    const std::string id = result.value("id", "");
    Finished inspected = run_minivmm({"inspect", store_ + "@" + id, "--json"});
    ASSERT_EQ(inspected.status, 0) << inspected.output;
    const json whole = json::parse(inspected.output, nullptr, false);

    EXPECT_EQ(row["id"], id);
    EXPECT_EQ(whole["id"], id);
    EXPECT_EQ(result["kind"], i == 0 ? "full" : "incremental");
    for (const char* name : {"kind", "pause_ns"}) {
      EXPECT_EQ(result[name], row[name]) << name;
      EXPECT_EQ(result[name], whole[name]) << name;
    }
    EXPECT_EQ(result["pages"], row["ram_pages"]);
    EXPECT_EQ(result["pages"], whole["own"]["ram_pages"]);
    EXPECT_EQ(result["zero_pages"], row["zero_pages"]);
    EXPECT_EQ(result["zero_pages"], whole["own"]["zero_pages"]);
    EXPECT_EQ(result["bytes"], row["bytes"]);
    EXPECT_EQ(result["bytes"], whole["own"].value("stored_bytes", uint64_t{0}) +
                                   std::filesystem::file_size(store_ + "/snap/" + id));
    EXPECT_EQ(result["pages"] == whole["ram"]["data"], i == 0);
    EXPECT_GT(result["pages"], i == 0 ? 1024 : 0);
    // Later there are merged indexes as well, which are no snapshot's own.
    if (i == 0) {
      EXPECT_EQ(result["bytes"], bytes_in({"packs", "runs", "snap"}));
    }

    uint64_t steps = 0;
    for (const char* step : {"stop", "barrier", "log", "stage", "state", "run"}) {
      EXPECT_GT(result["pause_steps_ns"].value(step, uint64_t{0}), 0u) << step;
      steps += result["pause_steps_ns"].value(step, uint64_t{0});
    }
    EXPECT_EQ(result["pause_ns"], steps);
    EXPECT_GE(result["total_ns"], result["pause_ns"]);
    EXPECT_GE(result["copied_pages"].get<uint64_t>(), result["pages"].get<uint64_t>());
  }
}

// Each of those who ask at once hears of his own, or that another one is being taken.
TEST_F(SnapshotCommandTest, OfManyThatAreAskedForEachIsTold) {
  auto vm = run("size=1M rate=100 verify=1", "32M");
  std::vector<std::thread> askers;
  std::vector<Finished> ends(4 * 8);
  for (size_t asker = 0; asker < 4; ++asker) {
    askers.emplace_back([&ends, asker] {
      for (size_t i = 0; i < 8; ++i)
        ends[asker * 8 + i] = run_minivmm({"snapshot", "vm", "--json"});
    });
  }
  for (std::thread& asker : askers) asker.join();
  std::set<std::string> told;
  size_t late = 0;
  for (const Finished& end : ends) {
    if (end.output.find("the result is gone") != std::string::npos) {
      ++late;  // on a busy host: nine others since
      continue;
    }
    if (end.status != 0) {
      EXPECT_NE(end.output.find("a snapshot is being taken"), std::string::npos) << end.output;
      continue;
    }
    const json result = json::parse(end.output, nullptr, false);
    EXPECT_TRUE(told.insert(result.is_object() ? result.value("id", "") : "").second) << end.output;
  }
  EXPECT_FALSE(told.empty());
  std::set<std::string> there;
  for (const json& row : listed()) there.insert(row.value("id", ""));
  EXPECT_TRUE(std::ranges::includes(there, told));
  EXPECT_EQ(there.size(), told.size() + late);
}

// And so is what it prints for people.
TEST_F(SnapshotCommandTest, ItsLineNamesIdKindPagesAndSize) {
  auto vm = run("size=8M rate=20000 verify=1", "64M");
  for (const char* kind : {"full", "incremental"}) {
    Finished taken = run_minivmm({"snapshot", "vm"});
    ASSERT_EQ(taken.status, 0) << taken.output;
    const json row = listed().back();
    static const std::regex kLine(
        R"(([0-9a-f]{32})  ([a-z]+)  (\d+) pages, ([\d.]+) ([KM]iB) written, pause ([\d.]+ [mu]?s), )"
        R"([\d.]+ [mu]?s in all\n  \d+ rounds; pause: stop .*\n[^]*)");
    std::smatch line;
    ASSERT_TRUE(std::regex_match(taken.output, line, kLine)) << taken.output;
    EXPECT_EQ(line[1], row.value("id", ""));
    EXPECT_EQ(line[2], kind);
    EXPECT_EQ(line[3], std::to_string(row.value("ram_pages", uint64_t{0})));
    const double unit = line[5] == "KiB" ? 1024 : 1024 * 1024;
    EXPECT_NEAR(std::stod(line[4]), row.value("bytes", 0.0) / unit, 0.051);
  }
}

TEST_F(SnapshotCommandTest, ASignalTakesOneAndTheTermSignalTheLast) {
  VmProcess vm({"run", "--kernel", MINIVMM_PAYLOAD_DIRECTORY "/dirty.elf", "--cmdline",
                "size=8M rate=1000 verify=1", "--memory", "64M", "--store", store_, "--name", "vm",
                "--snapshot-on-term"});
  ASSERT_TRUE(vm.expect("dirty: round=")) << vm.output();
  vm.signal(SIGUSR1);
  for (int i = 0; i < 1000 && listed().empty(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  ASSERT_EQ(listed().size(), 1u);
  EXPECT_TRUE(vm.expect("dirty: round=")) << vm.output();
  vm.signal(SIGTERM);
  EXPECT_EQ(vm.wait(), kSnapshotted) << vm.output();
  EXPECT_EQ(listed().size(), 2u);
  VmProcess restored({"restore", store_, "--name", "restored"});
  restored.send("q");
  EXPECT_EQ(restored.wait(), 0) << restored.output();
  EXPECT_NE(restored.output().find("verified=yes"), std::string::npos) << restored.output();
}

// Of this machine: another one's in the same store stay.
TEST_F(SnapshotCommandTest, OfManyTheLastFewAreKept) {
  auto other = run("size=1M rate=100 verify=1", "32M");
  for (int i = 0; i < 4; ++i) take({});
  VmProcess vm({"run", "--kernel", MINIVMM_PAYLOAD_DIRECTORY "/dirty.elf", "--cmdline",
                "size=8M rate=1000 verify=1", "--memory", "64M", "--store", store_, "--name",
                "kept", "--snapshot-every", "100ms", "--keep", "2"});
  ASSERT_TRUE(vm.expect("dirty: round=")) << vm.output();
  std::set<std::string> seen;
  size_t most = 0, of_the_other = 0;
  for (int i = 0; i < 3000 && seen.size() < 8; ++i) {
    size_t now = 0;
    of_the_other = 0;
    for (const json& snapshot : listed()) {
      const bool own = snapshot.value("vm_name", "") == "kept";
      if (own) seen.insert(snapshot.value("id", ""));
      ++(own ? now : of_the_other);
    }
    if (seen.size() >= 4) most = std::max(most, now);
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  EXPECT_GE(seen.size(), 8u) << vm.output();
  // The newest may be there already when the oldest still is.
  EXPECT_GE(most, 2u);
  EXPECT_LE(most, 3u);
  EXPECT_EQ(of_the_other, 4u);
  vm.signal(SIGKILL);
  vm.wait();
  Finished verified = run_minivmm({"verify", store_});
  EXPECT_EQ(verified.status, 0) << verified.output;
}

// The last one of a long run is not to be of a guest that shuts itself down.
TEST_F(SnapshotCommandTest, NoneIsTakenByItselfOnceAShutdownIsAskedFor) {
  auto vm = run("size=1M rate=100 verify=1", "32M", {"--snapshot-every", "20ms", "--keep", "3"});
  for (int i = 0; i < 3000 && listed().size() < 3; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  // The payload does not look at its power button.
  Finished stopped = run_minivmm({"stop", "vm", "--timeout", "0"});
  EXPECT_EQ(stopped.status, 0) << stopped.output;
  auto newest = [&] { return listed().back().value("id", ""); };
  take({});  // and with it the one that may have been under way
  const std::string last = newest();
  std::this_thread::sleep_for(std::chrono::milliseconds(500));
  EXPECT_EQ(newest(), last);
  const json asked_for = take({});
  EXPECT_EQ(asked_for["id"], newest());
}

TEST_F(SnapshotCommandTest, DisksThatAreOnlyReadAreFoundAgain) {
  std::string data = directory_.file("data.img"), other = directory_.file("other.img");
  for (const std::string& path : {data, other}) {
    std::ofstream(path) << std::string(1 << 20, path == data ? 'd' : 'o');
  }
  VmProcess vm({"run", "--kernel", MINIVMM_PAYLOAD_DIRECTORY "/dirty.elf", "--cmdline",
                "size=8M rate=1000 verify=1", "--memory", "64M", "--store", store_, "--name", "vm",
                "--disk", data + ",ro"});
  ASSERT_TRUE(vm.expect("dirty: round=")) << vm.output();
  Finished taken = run_minivmm({"snapshot", "vm", "--stop"});
  EXPECT_EQ(taken.status, 0) << taken.output;
  EXPECT_EQ(vm.wait(), kSnapshotted);

  Finished wrong = run_minivmm({"restore", store_, "--disk", other});
  EXPECT_EQ(wrong.status, 2);
  EXPECT_NE(wrong.output.find(other), std::string::npos) << wrong.output;

  {
    VmProcess restored({"restore", store_, "--name", "again", "--disk", data});
    ASSERT_TRUE(restored.expect("dirty: round=")) << restored.output();
    Finished next = run_minivmm({"snapshot", "again", "--stop", "--json"});
    EXPECT_EQ(next.status, 0) << next.output;
    EXPECT_EQ(json::parse(next.output, nullptr, false).value("kind", ""), "incremental");
    EXPECT_EQ(restored.wait(), kSnapshotted) << restored.output();
  }
  {
    VmProcess third({"restore", store_, "--name", "third", "--disk", data});
    third.send("q");
    EXPECT_EQ(third.wait(), 0) << third.output();
    EXPECT_NE(third.output().find("verified=yes"), std::string::npos) << third.output();
  }
  // Somebody writes to it under a restored machine: no later snapshot takes that for what it was.
  {
    VmProcess last({"restore", store_, "--name", "last", "--disk", data});
    ASSERT_TRUE(last.expect("dirty: round=")) << last.output();
    std::ofstream(data) << std::string(1 << 20, 'x');
    Finished next = run_minivmm({"snapshot", "last", "--stop"});
    EXPECT_EQ(next.status, 0) << next.output;
    EXPECT_EQ(last.wait(), kSnapshotted) << last.output();
  }
  Finished changed = run_minivmm({"restore", store_, "--disk", data});
  EXPECT_EQ(changed.status, 2);
  EXPECT_NE(changed.output.find(data), std::string::npos) << changed.output;
}

TEST_F(SnapshotCommandTest, ADamagedOneDoesNotRun) {
  auto vm = run("size=8M rate=1000 verify=1", "64M");
  Finished taken = run_minivmm({"snapshot", "vm", "--stop"});
  EXPECT_EQ(taken.status, 0) << taken.output;
  EXPECT_EQ(vm->wait(), kSnapshotted);
  for (const auto& pack : std::filesystem::directory_iterator(store_ + "/packs")) {
    std::fstream file(pack.path(), std::ios::in | std::ios::out | std::ios::binary);
    for (uint64_t at = 4096; at < std::filesystem::file_size(pack.path()); at += 4096) {
      file.seekp(static_cast<std::streamoff>(at + 77));
      file.put('#');
    }
  }
  for (const char* how : {"--eager", "--lazy"}) {
    SCOPED_TRACE(how);
    VmProcess restored({"restore", store_, how, "--name", "restored"});
    const int status = restored.wait().value_or(-1);
    // Lazily it may be the guest that meets it first: an error of the machine, then.
    EXPECT_TRUE(status == 2 || (how == std::string("--lazy") && status == 196)) << status;
    EXPECT_NE(restored.output().find("packs/"), std::string::npos) << restored.output();
    EXPECT_NE(restored.output().find("has a wrong hash"), std::string::npos);
    EXPECT_EQ(restored.output().find("dirty: round="), std::string::npos) << restored.output();
  }
}

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

// A machine without a store is bound to none by a snapshot that came to nothing.
TEST_F(SnapshotCommandTest, AFirstOneThatIsCancelledBindsToNoStore) {
  VmProcess vm({"run", "--kernel", MINIVMM_PAYLOAD_DIRECTORY "/dirty.elf", "--cmdline",
                "size=128M rate=1000 verify=1", "--memory", "256M", "--name", "vm"});
  ASSERT_TRUE(vm.expect("dirty: round=")) << vm.output();
  const std::string mistyped = directory_.file("mistyped");
  VmProcess snapshot({"snapshot", "vm", "--store", mistyped});
  for (int i = 0; i < 100'000 && !std::filesystem::exists(mistyped + "/FORMAT"); ++i) {
    std::this_thread::sleep_for(std::chrono::microseconds(100));
  }
  snapshot.signal(SIGINT);
  ASSERT_EQ(snapshot.wait(), 1) << snapshot.output();
  const json result = take({"--store", store_});
  EXPECT_EQ(result["kind"], "full");
  Finished list = run_minivmm({"list", mistyped, "--json"});
  EXPECT_EQ(json::parse(list.output, nullptr, false)["snapshots"], json::array()) << list.output;
  EXPECT_EQ(json::parse(list.output, nullptr, false)["branches"], json::array()) << list.output;
  expect_restores(result.value("id", ""));
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

// The guest writes four times the pool, again and again, as fast as it can.
TEST_F(SnapshotCommandTest, ThePoolIsNeverLargerThanWasAllowed) {
  constexpr uint64_t kAllowed = 4 << 20;
  auto vm = run("size=16M rate=0 verify=1 order=random", "64M", {"--staging", "4M"});
  std::vector<std::string> ids;
  for (const char* option : {"--full", "--on-hot=throttle", "--on-hot=stop", "--stop"}) {
    const json result = take({option});
    EXPECT_GT(result.value("staging_bytes", uint64_t{0}), 0u);
    EXPECT_LE(result.value("staging_bytes", UINT64_MAX), kAllowed) << result;
    EXPECT_GT(result.value("copied_pages", uint64_t{0}), kAllowed / 4096) << result;
    ids.push_back(result.value("id", ""));
  }
  EXPECT_EQ(vm->wait(), kSnapshotted) << vm->output();
  for (const std::string& id : ids) expect_restores(id);
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
