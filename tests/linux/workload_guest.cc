#include "tests/linux/workload_guest.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <regex>
#include <stdexcept>

namespace linux_tests {

namespace {

constexpr std::string_view kFailed = " FAIL ";

// The exit status of a shell command whose output nobody wants.
int shell(const std::string& command) {
  int status = std::system((command + " >/dev/null 2>&1").c_str());
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

// Does to a file system what mounting it would do, and makes sure that it needed no more: then
// `e2fsck -fn` looks at what the disk held, and not at a repair.
//
// `e2fsck -p` without -f replays the journal, gives back the inodes that were open without a name
// (the kernel's orphans; the workload makes one) and takes the superblock's free counts, which the
// kernel leaves stale while it is mounted, from the groups. A file system that says it is clean is
// not looked at any further. Where the journal, the superblock or the list of orphans is wrong, or
// the kernel had noted an error, -p says so or checks all: each line it may print is named here.
void expect_mountable(const std::string& image, const std::string& id) {
  const std::string said = image + ".said";
  const int status = std::system(("LC_ALL=C e2fsck -p " + image + " >" + said + " 2>&1").c_str());
  std::ifstream file(said);
  std::string line;
  bool replayed = false, clean = false;
  while (std::getline(file, line)) {
    static const std::regex kOrphan(".*: (Clearing|Truncating) orphaned inode \\d+ \\(.*\\)");
    static const std::regex kClean(".*: clean, \\d+/\\d+ files, \\d+/\\d+ blocks");
    if (line == image + ": recovering journal") {
      replayed = true;
    } else if (std::regex_match(line, kClean)) {
      clean = true;
    } else if (!std::regex_match(line, kOrphan)) {
      ADD_FAILURE() << id << ": " << line;
    }
  }
  // 1: something was changed.
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) <= 1) << id << ": status " << status;
  EXPECT_TRUE(replayed && clean) << id << ": " << replayed << clean;
  std::error_code ignored;
  std::filesystem::remove(said, ignored);
}

std::string workload_program(const Guest& guest) {
  std::string kernels = "/kernels/";
  std::string path = guest.kernel_path();
  return path.substr(0, path.rfind(kernels)) + "/userland/bin/workload";
}

}  // namespace

std::vector<Beat> beats(std::string_view output, size_t from) {
  static const std::regex kLine(
      R"(workload: beat=(\d+) ok mem=\d+ disk=(\d+),(\d+) .*mono=(\d+) real=(\d+)\r?\n)");
  std::vector<Beat> found;
  auto begin = output.begin() + static_cast<ptrdiff_t>(from);
  for (std::regex_iterator at(begin, output.end(), kLine), end = decltype(at)(); at != end; ++at) {
    auto number = [&](size_t group) { return std::stoull((*at)[group].str()); };
    found.push_back({.number = number(1),
                     .records = {number(2), number(3)},
                     .monotonic_ms = number(4),
                     .real_ms = number(5)});
  }
  return found;
}

WorkloadGuest::WorkloadGuest(const std::string& prepare, const std::string& kernel)
    : guest_(kernel), disk_(guest_.make_disk("disk.img", 32 << 20)) {
  if (shell("mke2fs -q -t ext4 " + disk_) != 0) throw std::runtime_error("mke2fs");
  guest_.script("modprobe ext4; mkdir -p /mnt; mount -t ext4 /dev/vda /mnt\n" + prepare +
                "\nworkload dir=/mnt mem=4M late=120000\n");
}

std::unique_ptr<VmProcess> WorkloadGuest::run(const std::string& name,
                                              const std::vector<std::string>& more) const {
  std::vector<std::string> options = {"--memory", "128M",  "--disk", disk_,
                                      "--store",  store(), "--name", name};
  options.insert(options.end(), more.begin(), more.end());
  auto vm = std::make_unique<VmProcess>(guest_.run(options));
  if (!vm->expect("workload: beat=2 ok", kFailed)) throw std::runtime_error(vm->output());
  return vm;
}

std::unique_ptr<VmProcess> WorkloadGuest::restore(const std::string& id, const std::string& name,
                                                  const std::vector<std::string>& more) const {
  std::vector<std::string> arguments = {"restore", at(id), "--name", name, "--disk", disk_};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return std::make_unique<VmProcess>(arguments);
}

Taken WorkloadGuest::snapshot(const std::string& name, const std::vector<std::string>& more) {
  std::vector<std::string> arguments = {"snapshot", name, "--json"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  Finished finished = run_minivmm(arguments);
  auto json = nlohmann::json::parse(finished.output, nullptr, false);
  if (finished.status != 0 || !json.is_object()) {
    throw std::runtime_error("minivmm snapshot: " + finished.output);
  }
  return {.id = json.value("id", ""),
          .full = json.value("kind", "") == "full",
          .pages = json.value("pages", uint64_t{0})};
}

void WorkloadGuest::expect_disk(const std::string& id, const Beat& flushed) const {
  std::string image = guest_.path("exported.img"), log = guest_.path("exported.log");
  Finished exported =
      run_minivmm({"export", at(id), "--disk", "0=" + image, "--disk-base", "0=" + disk_});
  ASSERT_EQ(exported.status, 0) << exported.output;
  expect_mountable(image, id);
  EXPECT_EQ(shell("e2fsck -fn " + image), 0) << id;
  for (size_t i = 0; i < 2; ++i) {
    ASSERT_EQ(shell("debugfs -R 'dump /log." + std::to_string(i) + " " + log + "' " + image), 0);
    std::string said = guest_.path("said");
    std::string verify = workload_program(guest_) + " verify-log " + log;
    int status = std::system((verify + " >" + said).c_str());
    std::ifstream file(said);
    std::string text(std::istreambuf_iterator<char>(file), {});
    std::smatch records;
    ASSERT_EQ(status, 0) << id << ": " << text;
    ASSERT_TRUE(std::regex_search(text, records, std::regex("records=(\\d+)"))) << text;
    EXPECT_GE(std::stoull(records[1].str()), flushed.records[i]) << id << ": log " << i;
  }
  std::error_code ignored;
  std::filesystem::remove(image, ignored);
  std::filesystem::remove(log, ignored);
}

std::optional<Beat> next_beat(VmProcess& vm) {
  constexpr std::string_view kBegin = "workload: beat=";
  if (!vm.expect(kBegin, kFailed)) return std::nullopt;
  size_t line = vm.seen() - kBegin.size();
  if (!vm.expect("\n", kFailed)) return std::nullopt;
  auto found = beats(vm.output(), line);
  return found.empty() ? std::nullopt : std::optional(found.front());
}

Beat last_beat(VmProcess& vm) {
  vm.read_available();
  auto found = beats(vm.output());
  return found.empty() ? Beat{} : found.back();
}

void expect_verified(VmProcess& vm) {
  vm.send("check\n");
  EXPECT_TRUE(vm.expect("workload: verified", kFailed)) << tail(vm);
}

std::string run_in_guest(VmProcess& vm, const std::string& command) {
  vm.send("!echo 'answer''='; " + command + "\n");
  EXPECT_TRUE(vm.expect("answer=")) << tail(vm);
  size_t begin = vm.seen();
  constexpr std::string_view kEnd = "workload: command exit=";
  EXPECT_TRUE(vm.expect(kEnd)) << tail(vm);
  return vm.output().substr(begin, vm.seen() - begin - kEnd.size());
}

void kill_now(VmProcess& vm) {
  vm.signal(SIGKILL);
  EXPECT_EQ(vm.wait(), 128 + SIGKILL) << tail(vm);
}

std::string tail(const VmProcess& vm) {
  constexpr size_t kMost = 2000;
  const std::string& output = vm.output();
  return output.size() <= kMost ? output : "…" + output.substr(output.size() - kMost);
}

}  // namespace linux_tests
