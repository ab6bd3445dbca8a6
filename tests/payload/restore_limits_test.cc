// `minivmm restore` with too few file descriptors: whatever is the first that cannot be opened, on
// whichever thread, it ends with a sentence, and leaves nothing behind.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
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

// Whose runtimes open pipes to look at memory.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;
#elif defined(__has_feature)
constexpr bool kSanitized = __has_feature(address_sanitizer) || __has_feature(thread_sanitizer);
#else
constexpr bool kSanitized = false;
#endif

class RestoreLimitsTest : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (auto why = payload_test::cannot_run()) GTEST_SKIP() << *why;
    if (kSanitized) GTEST_SKIP() << "the sanitizers' runtimes need descriptors as well";
    ::setenv("XDG_RUNTIME_DIR", directory_.path().c_str(), 1);
    std::ofstream(disk_).close();
    std::filesystem::resize_file(disk_, 1 << 20);
  }
  // The files of a folder that is there or not.
  static size_t files_in(const std::string& folder) {
    std::error_code missing;
    auto files = std::filesystem::directory_iterator(folder, missing);
    return missing ? 0 : static_cast<size_t>(std::distance(begin(files), end(files)));
  }

  test::TemporaryDirectory directory_;
  std::string store_ = directory_.file("store");
  std::string disk_ = directory_.file("disk");
};

TEST_P(RestoreLimitsTest, TooFewDescriptorsAreToldAndLeaveNothing) {
  {
    VmProcess vm({"run", "--kernel", MINIVMM_PAYLOAD_DIRECTORY "/dirty.elf", "--cmdline",
                  "size=1M rate=1000 rounds=16 verify=1", "--memory", "32M", "--store", store_,
                  "--disk", disk_, "--name", "vm"});
    ASSERT_TRUE(vm.expect("tsc_khz=")) << vm.output();
    Finished taken = run_minivmm({"snapshot", "vm", "--stop"});
    ASSERT_EQ(taken.status, 0) << taken.output;
    ASSERT_EQ(vm.wait(), cli::kSnapshotted) << vm.output();
  }
  std::set<int> ends;
  constexpr unsigned kStandard = 3, kEnough = 64;
  for (unsigned descriptors = kStandard; descriptors < kEnough && !ends.contains(0);
       ++descriptors) {
    SCOPED_TRACE(descriptors);
    // Of guests that have run: what they wrote after their last snapshot is kept.
    const size_t heads = files_in(store_ + "/heads");
    VmProcess vm({"restore", store_, GetParam(), "--disk", disk_, "--name", "restored"},
                 VmProcess::Input::kPipe, descriptors);
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
    if (status != cli::kBadInput) continue;
    // What this one would have written to is gone with it.
    EXPECT_EQ(files_in(store_ + "/heads"), heads);
    EXPECT_EQ(files_in(store_ + "/tmp"), 0u);
  }
  // Before the guest ran, and after it had begun: what it can do without at first is opened then.
  EXPECT_EQ(ends, (std::set<int>{cli::kSuccess, cli::kBadInput, cli::kVmmError}));
  Finished verified = run_minivmm({"verify", store_});
  EXPECT_EQ(verified.status, 0) << verified.output;
}

INSTANTIATE_TEST_SUITE_P(Ways, RestoreLimitsTest, testing::Values("--eager", "--lazy"),
                         [](const auto& way) { return std::string(way.param + 2); });

}  // namespace
