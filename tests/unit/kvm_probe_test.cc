#include "vmm/kvm_probe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/temporary_file.h"

namespace vmm {
namespace {

using testing::HasSubstr;

TEST(KvmProbe, SaysThatThereIsNoKvm) {
  KvmProbe probe = probe_kvm("/nonexistent/kvm");
  EXPECT_EQ(probe.ring0, Ring0::kAbsent);
  EXPECT_THAT(probe.problem, HasSubstr("/nonexistent/kvm: no such device"));
  EXPECT_FALSE(probe.dirty_ring);
}

TEST(KvmProbe, SaysThatAFileIsNoKvm) {
  test::TemporaryFile file;
  KvmProbe probe = probe_kvm(file.path());
  EXPECT_EQ(probe.ring0, Ring0::kAbsent);
  EXPECT_THAT(probe.problem, HasSubstr("is not a KVM device"));
}

TEST(KvmProbe, MeasuresWhatItCallsHardware) {
  KvmProbe probe = probe_kvm();
  if (probe.ring0 == Ring0::kAbsent) GTEST_SKIP() << "no KVM here: " << probe.problem;
  EXPECT_EQ(probe.problem, "");
  EXPECT_GT(probe.instructions_per_second, 0);
  EXPECT_EQ(probe.ring0 == Ring0::kHardware, probe.instructions_per_second >= kHardwareRate);
}

TEST(Ring0, HasTheNamesThatScriptsLookFor) {
  EXPECT_STREQ(ring0_name(Ring0::kAbsent), "absent");
  EXPECT_STREQ(ring0_name(Ring0::kEmulated), "emulated");
  EXPECT_STREQ(ring0_name(Ring0::kHardware), "hardware");
}

}  // namespace
}  // namespace vmm
