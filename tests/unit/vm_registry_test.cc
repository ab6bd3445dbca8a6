#include "cli/vm_registry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "cli/runtime_dir.h"
#include "tests/support/temporary_directory.h"
#include "vmm/base/unix_socket.h"

namespace cli {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

struct VmRegistry : testing::Test {
  VmName claim(const std::string& name, const std::string& socket = "") {
    return *VmName::claim(directory.path(), name, socket);
  }
  std::vector<std::string> names() {
    std::vector<std::string> names;
    const std::vector<RunningVm> vms = *running_vms(directory.path());
    for (const RunningVm& vm : vms) names.push_back(vm.name);
    return names;
  }
  // A process that claims `name`, listens and is killed.
  void leave_remains(const std::string& name, const std::string& socket = "") {
    pid_t child = ::fork();
    if (child == 0) {
      auto vm = claim(name, socket);
      auto listener = base::UnixListener::create(vm.socket());
      ::kill(::getpid(), SIGKILL);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status));
  }
  test::TemporaryDirectory directory;
};

TEST_F(VmRegistry, ListsWhatRuns) {
  EXPECT_THAT(names(), ElementsAre());
  {
    VmName b = claim("b");
    VmName a = claim("a", "/tmp/elsewhere.sock");
    auto vms = *running_vms(directory.path());
    ASSERT_EQ(vms.size(), 2u);
    EXPECT_EQ(vms[0].name, "a");
    EXPECT_EQ(vms[0].socket, "/tmp/elsewhere.sock");
    EXPECT_EQ(vms[1].socket, directory.file("b.sock"));
    EXPECT_EQ(vms[1].pid, ::getpid());
    EXPECT_TRUE(vm_runs(directory.path(), "a"));
  }
  EXPECT_FALSE(vm_runs(directory.path(), "a"));
  EXPECT_THAT(names(), ElementsAre());
  EXPECT_TRUE(directory.empty());
}

TEST_F(VmRegistry, ANameIsGivenOnce) {
  VmName job = claim("job");
  auto second = VmName::claim(directory.path(), "job", "");
  ASSERT_FALSE(second);
  EXPECT_THAT(second.error().text(), HasSubstr("job runs already"));
  EXPECT_THAT(names(), ElementsAre("job"));
}

TEST_F(VmRegistry, TheFirstFreeNumberIsTaken) {
  VmName one = claim("");
  {
    VmName two = claim("");
    VmName three = claim("");
    EXPECT_EQ(one.name(), "vm1");
    EXPECT_EQ(two.name(), "vm2");
    EXPECT_EQ(three.name(), "vm3");
  }
  EXPECT_EQ(claim("").name(), "vm2");
}

TEST_F(VmRegistry, RemainsOfAKilledMachineAreNotListedAndRemoved) {
  leave_remains("dead");
  ASSERT_TRUE(std::filesystem::exists(directory.file("dead.sock")));
  VmName live = claim("live");
  EXPECT_FALSE(vm_runs(directory.path(), "dead"));
  EXPECT_THAT(names(), ElementsAre("live"));
  EXPECT_FALSE(std::filesystem::exists(directory.file("dead.sock")));
  EXPECT_FALSE(std::filesystem::exists(directory.file("dead.lock")));
}

TEST_F(VmRegistry, TheNameOfAKilledMachineIsFree) {
  test::TemporaryDirectory other;
  leave_remains("job", other.file("s"));
  VmName job = claim("job");
  EXPECT_TRUE(other.empty());  // the socket of the dead one
  EXPECT_EQ((*running_vms(directory.path()))[0].socket, directory.file("job.sock"));
}

TEST_F(VmRegistry, TheSocketThatADeadMachineHadMayBeAnothers) {
  test::TemporaryDirectory other;
  const std::string socket = other.file("s");
  for (const bool by_name : {false, true}) {
    leave_remains("dead", socket);
    auto listener = *base::UnixListener::create(socket);
    if (by_name) {
      claim("dead");
    } else {
      EXPECT_THAT(names(), ElementsAre());
    }
    EXPECT_FALSE(std::filesystem::exists(directory.file("dead.lock")));
    EXPECT_TRUE(base::connect_unix(socket));
  }
}

TEST_F(VmRegistry, AClaimedSocketIsNotTakenForRemains) {
  test::TemporaryDirectory other;
  leave_remains("dead", other.file("s"));
  VmName job = claim("job", other.file("s"));
  auto listener = *base::UnixListener::bind(job.socket());  // does not listen yet
  EXPECT_THAT(names(), ElementsAre("job"));
  EXPECT_TRUE(listener.listen());
}

TEST_F(VmRegistry, ASocketIsGivenOnce) {
  VmName job = claim("job", directory.file("s"));
  auto second = VmName::claim(directory.path(), "other", directory.file("s"));
  ASSERT_FALSE(second);
  EXPECT_THAT(second.error().text(), HasSubstr("the machine job has the control socket"));
  EXPECT_THAT(names(), ElementsAre("job"));
}

TEST_F(VmRegistry, OnlySocketsAreRemovedAsRemains) {
  test::TemporaryDirectory other;
  std::ofstream(other.file("data")) << "precious";
  std::ofstream(directory.file("x.lock")) << R"({"pid":1,"socket":")" + other.file("data") + "\"}";
  EXPECT_THAT(names(), ElementsAre());
  EXPECT_TRUE(std::filesystem::exists(other.file("data")));
}

TEST_F(VmRegistry, OtherFilesAreLeftAlone) {
  std::ofstream(directory.file("notes.txt")) << "x";
  std::filesystem::create_symlink("/etc/passwd", directory.file("link.lock"));
  EXPECT_THAT(names(), ElementsAre());
  EXPECT_TRUE(std::filesystem::exists(directory.file("notes.txt")));
  EXPECT_TRUE(std::filesystem::is_symlink(directory.file("link.lock")));
}

TEST_F(VmRegistry, ASocketPathMustFit) {
  auto claimed = VmName::claim(directory.path(), "job", "/" + std::string(107, 'x'));
  ASSERT_FALSE(claimed);
  EXPECT_THAT(claimed.error().text(), HasSubstr("too long"));
  EXPECT_TRUE(directory.empty());
}

TEST_F(VmRegistry, ARelativeSocketIsMadeAbsolute) {
  EXPECT_EQ(claim("job", "s").socket(), std::filesystem::current_path().string() + "/s");
}

TEST_F(VmRegistry, AMissingMachineIsSaidWithThoseThatRun) {
  EXPECT_THAT(find_vm(directory.path(), "x").error().text(),
              HasSubstr("no machine named x runs (none does)"));
  VmName a = claim("a"), b = claim("b");
  EXPECT_THAT(find_vm(directory.path(), "x").error().text(), HasSubstr("running: a, b"));
  EXPECT_EQ(find_vm(directory.path(), "b")->name, "b");
}

TEST(RunningVms, NoDirectoryIsNoMachine) {
  EXPECT_TRUE(running_vms("/nonexistent/minivmm")->empty());
}

struct RuntimeDir : testing::Test {
  RuntimeDir() { ::setenv("XDG_RUNTIME_DIR", directory.path().c_str(), 1); }
  ~RuntimeDir() override {
    if (before) {
      ::setenv("XDG_RUNTIME_DIR", before->c_str(), 1);
    } else {
      ::unsetenv("XDG_RUNTIME_DIR");
    }
  }
  test::TemporaryDirectory directory;
  std::optional<std::string> before = [] {
    const char* value = std::getenv("XDG_RUNTIME_DIR");
    return value == nullptr ? std::nullopt : std::optional<std::string>(value);
  }();
};

TEST_F(RuntimeDir, IsMadeForTheUserAlone) {
  auto path = prepare_runtime_dir();
  ASSERT_TRUE(path) << path.error().text();
  EXPECT_EQ(*path, directory.file("minivmm"));
  struct stat info{};
  ASSERT_EQ(::stat(path->c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0700u);
  EXPECT_EQ(*prepare_runtime_dir(), *path);
}

TEST_F(RuntimeDir, IsRefusedWhereOthersCanWrite) {
  std::filesystem::create_directory(directory.file("minivmm"));
  std::filesystem::permissions(directory.file("minivmm"), std::filesystem::perms::all);
  auto path = prepare_runtime_dir();
  ASSERT_FALSE(path);
  EXPECT_THAT(path.error().text(), HasSubstr("only you can write"));
}

TEST_F(RuntimeDir, IsRefusedWhereItIsALink) {
  std::filesystem::create_directory_symlink("/tmp", directory.file("minivmm"));
  EXPECT_FALSE(prepare_runtime_dir());
}

}  // namespace
}  // namespace cli
