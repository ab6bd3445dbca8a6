// `minivmm restore` of a store in which something is damaged: manifests, runs, and a pack that a
// running guest does not need yet (more of packs: SnapshotCommandTest). It ends with a sentence
// that names the file, and the guest does not run where it cannot run without what is damaged.
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <sstream>
#include <string>
#include <vector>

#include "cli/exit_status.h"
#include "tests/linux/vm_process.h"
#include "tests/payload/guest.h"
#include "tests/support/temporary_directory.h"

namespace {

using linux_tests::Finished;
using linux_tests::run_minivmm;
using linux_tests::VmProcess;
namespace fs = std::filesystem;

constexpr uint64_t kBlock = 4096;

class RestoreDamageTest : public testing::Test {
 protected:
  void SetUp() override {
    if (auto why = payload_test::cannot_run()) GTEST_SKIP() << *why;
    ::setenv("XDG_RUNTIME_DIR", directory_.path().c_str(), 1);
  }

  // Leaves a store with one snapshot, taken once the guest has printed `when`.
  void make_store(const std::string& payload, const std::string& command_line,
                  const std::string& when) {
    VmProcess vm({"run", "--kernel", MINIVMM_PAYLOAD_DIRECTORY "/" + payload + ".elf", "--cmdline",
                  command_line, "--memory", "32M", "--store", store_, "--name", "vm"});
    ASSERT_TRUE(vm.expect(when)) << vm.output();
    Finished taken = run_minivmm({"snapshot", "vm", "--stop"});
    ASSERT_EQ(taken.status, 0) << taken.output;
    ASSERT_EQ(vm.wait(), cli::kSnapshotted) << vm.output();
  }

  std::vector<std::string> files(const std::string& folder) const {
    std::vector<std::string> names;
    for (const auto& file : fs::directory_iterator(store_ + "/" + folder)) {
      names.push_back(folder + "/" + file.path().filename().string());
    }
    return names;
  }
  std::string read(const std::string& name) const {
    std::ostringstream content;
    content << std::ifstream(store_ + "/" + name, std::ios::binary).rdbuf();
    return content.str();
  }
  void write(const std::string& name, const std::string& content) const {
    std::ofstream(store_ + "/" + name, std::ios::binary) << content;
  }

  VmProcess restore(const std::string& how) const {
    return VmProcess({"restore", store_, how, "--name", "restored", "--api-socket", socket_});
  }

  using Change = std::function<void(std::string& content)>;
  // The file with that change: nothing of the guest is seen, where `at_all` not even lazily.
  void expect_refused(const std::string& name, const Change& change, bool at_all = true) const {
    const std::string whole = read(name);
    std::string content = whole;
    change(content);
    ASSERT_NE(content, whole);
    write(name, content);
    for (const std::string how : {"--eager", "--lazy"}) {
      SCOPED_TRACE(how);
      const bool lazy = how == "--lazy";
      VmProcess restored = restore(how);
      const int status = restored.wait().value_or(-1);
      // Lazily it may be the guest that meets it first: an error of the machine, then.
      EXPECT_TRUE(status == cli::kBadInput || (lazy && status == cli::kVmmError)) << status;
      EXPECT_FALSE(fs::exists(socket_));
      // Where it is the only manifest there is, the snapshot is named: its file has that name.
      const std::string said = name.starts_with("snap/") ? name.substr(5) : name;
      EXPECT_NE(restored.output().find(said), std::string::npos) << restored.output();
      if (at_all || !lazy) {
        EXPECT_EQ(restored.output().find("dirty: "), std::string::npos) << restored.output();
      }
      EXPECT_EQ(restored.output().find("FAIL"), std::string::npos) << restored.output();
    }
    write(name, whole);
  }
  static Change change_byte(size_t at) {
    return
        [at](std::string& content) { content.at(at) = static_cast<char>(content.at(at) ^ 0x55); };
  }
  static Change cut_to(size_t bytes) {
    return [bytes](std::string& content) { content.resize(bytes); };
  }

  // What the test did is undone: the snapshot is as good as before.
  void expect_good(const std::string& what) const {
    for (const std::string how : {"--eager", "--lazy"}) {
      VmProcess restored = restore(how);
      restored.send("q");
      EXPECT_EQ(restored.wait(), 0) << restored.output();
      EXPECT_NE(restored.output().find(what), std::string::npos) << restored.output();
    }
  }

  test::TemporaryDirectory directory_;
  std::string store_ = directory_.file("store"), socket_ = directory_.file("s");
};

constexpr const char* kDirty = "size=8M rate=0 verify=1 order=random";

// Body and sections, at both ends and in between.
TEST_F(RestoreDamageTest, AManifest) {
  ASSERT_NO_FATAL_FAILURE(make_store("dirty", kDirty, "dirty: round="));
  ASSERT_EQ(files("snap").size(), 1u);
  const std::string name = files("snap")[0];
  const size_t size = read(name).size();
  constexpr size_t kPlaces = 12;
  for (size_t i = 0; i <= kPlaces; ++i) {
    const size_t at = (size - 1) * i / kPlaces;
    SCOPED_TRACE("byte " + std::to_string(at) + " of " + std::to_string(size));
    ASSERT_NO_FATAL_FAILURE(expect_refused(name, change_byte(at)));
  }
  for (size_t bytes : {size_t{0}, size_t{7}, size / 2, size - 1}) {
    SCOPED_TRACE("cut to " + std::to_string(bytes));
    ASSERT_NO_FATAL_FAILURE(expect_refused(name, cut_to(bytes)));
  }
  expect_good("verified=yes");
}

// Its head, each of its blocks alone, and all of them.
TEST_F(RestoreDamageTest, ARun) {
  ASSERT_NO_FATAL_FAILURE(make_store("dirty", kDirty, "dirty: round="));
  ASSERT_EQ(files("runs").size(), 1u);
  const std::string name = files("runs")[0];
  const size_t size = read(name).size();
  ASSERT_GT(size, 4 * kBlock);
  for (size_t at = 77; at < size; at += kBlock) {
    SCOPED_TRACE("byte " + std::to_string(at) + " of " + std::to_string(size));
    // Lazily the guest runs for as long as it needs no page that one leaf has; head and root are
    // needed for every page.
    const bool every_page = at < kBlock || at + kBlock > size;
    ASSERT_NO_FATAL_FAILURE(expect_refused(name, change_byte(at), every_page));
  }
  for (size_t bytes : {size_t{0}, kBlock / 2, size / 2, size - kBlock, size - 1}) {
    SCOPED_TRACE("cut to " + std::to_string(bytes));
    ASSERT_NO_FATAL_FAILURE(expect_refused(name, cut_to(bytes)));
  }
  expect_good("verified=yes");
}

// A page that a guest which runs does not need meanwhile: it is met when the rest is brought.
TEST_F(RestoreDamageTest, APageOfAGuestThatRuns) {
  ASSERT_NO_FATAL_FAILURE(make_store("jitter", "size=16M rate=10", "jitter: filled"));
  ASSERT_EQ(files("packs").size(), 1u);
  const std::string name = files("packs")[0];
  std::string content = read(name);
  change_byte(content.size() / 4 * 3)(content);
  write(name, content);
  VmProcess restored({"restore", store_, "--lazy", "--api-socket", socket_},
                     VmProcess::Input::kTerminal);
  const auto end = std::chrono::steady_clock::now() + linux_tests::kPatience;
  while (!restored.raw() && std::chrono::steady_clock::now() < end) ::usleep(1000);
  EXPECT_TRUE(restored.raw());
  EXPECT_EQ(restored.wait(), cli::kVmmError);
  EXPECT_NE(restored.output().find(name), std::string::npos) << restored.output();
  EXPECT_FALSE(restored.raw());
  EXPECT_FALSE(fs::exists(socket_));
}

}  // namespace
