// `minivmm restore` with too few file descriptors: whatever is the first that cannot be opened, on
// whichever thread, it ends with a sentence, and leaves nothing behind.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <set>
#include <string>

#include "cli/exit_status.h"
#include "tests/linux/vm_process.h"
#include "tests/payload/guest.h"
#include "tests/support/temporary_directory.h"

namespace {

using linux_tests::Finished;
using linux_tests::run_minivmm;
using linux_tests::VmProcess;

class RestoreLimitsTest : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (auto why = payload_test::cannot_run()) GTEST_SKIP() << *why;
    ::setenv("XDG_RUNTIME_DIR", directory_.path().c_str(), 1);
  }
  // The files of a folder that is there or not.
  static size_t files_in(const std::string& folder) {
    std::error_code missing;
    auto files = std::filesystem::directory_iterator(folder, missing);
    return missing ? 0 : static_cast<size_t>(std::distance(begin(files), end(files)));
  }

  test::TemporaryDirectory directory_;
  std::string store_ = directory_.file("store");
};

TEST_P(RestoreLimitsTest, TooFewDescriptorsAreToldAndLeaveNothing) {
  {
    VmProcess vm({"run", "--kernel", MINIVMM_PAYLOAD_DIRECTORY "/dirty.elf", "--cmdline",
                  "size=1M rate=1000 rounds=4 verify=1", "--memory", "32M", "--store", store_,
                  "--name", "vm"});
    ASSERT_TRUE(vm.expect("tsc_khz=")) << vm.output();
    Finished taken = run_minivmm({"snapshot", "vm", "--stop"});
    ASSERT_EQ(taken.status, 0) << taken.output;
    ASSERT_EQ(vm.wait(), cli::kSnapshotted) << vm.output();
  }
  std::set<int> ends;
  // The runtimes of the sanitizers open files as well, one at a time.
  constexpr unsigned kFirst = 6, kEnough = 64;
  for (unsigned descriptors = kFirst; descriptors < kEnough && !ends.contains(0); ++descriptors) {
    SCOPED_TRACE(descriptors);
    VmProcess vm({"restore", store_, GetParam(), "--name", "restored"}, VmProcess::Input::kPipe,
                 descriptors);
    const int status = vm.wait().value_or(-1);
    ends.insert(status);
    if (status == cli::kSuccess) {
      EXPECT_NE(vm.output().find("verified=yes"), std::string::npos) << vm.output();
    } else {
      EXPECT_TRUE(status == cli::kBadInput || status == cli::kVmmError) << status;
      EXPECT_NE(vm.output().find("minivmm: "), std::string::npos) << vm.output();
      EXPECT_NE(vm.output().find("Too many open files"), std::string::npos) << vm.output();
    }
    EXPECT_EQ(files_in(directory_.file("minivmm")), 0u);
    EXPECT_EQ(files_in(store_ + "/heads"), 0u);
  }
  // Before the guest ran, and after it had begun: what it can do without at first is opened then.
  EXPECT_EQ(ends, (std::set<int>{cli::kSuccess, cli::kBadInput, cli::kVmmError}));
  Finished verified = run_minivmm({"verify", store_});
  EXPECT_EQ(verified.status, 0) << verified.output;
}

INSTANTIATE_TEST_SUITE_P(Ways, RestoreLimitsTest, testing::Values("--eager", "--lazy"),
                         [](const auto& way) { return std::string(way.param + 2); });

}  // namespace
