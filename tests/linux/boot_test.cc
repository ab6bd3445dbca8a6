// Debian's kernels, unmodified, reach user space: each flavour, each way to boot, each CPU count.

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "tests/linux/guest.h"
#include "tests/linux/vm_process.h"
#include "vmm/base/mapping.h"
#include "vmm/boot/byte_source.h"
#include "vmm/boot/bzimage.h"

namespace linux_tests {
namespace {

struct Boot {
  const char* kernel;
  int cpus;
};

class BootTest : public ::testing::TestWithParam<Boot> {};

TEST_P(BootTest, ReachesUserSpaceAndPowersOff) {
  Guest guest(GetParam().kernel);
  guest.script("echo online=$(cat /sys/devices/system/cpu/online) root=$(id -u)\n");
  std::string cpus = std::to_string(GetParam().cpus);
  VmProcess vm(guest.run({"--cpus", cpus, "--memory", "512M"}));
  EXPECT_TRUE(vm.expect("minivmm-init: ready kernel=" + guest.release() + " cpus=" + cpus))
      << vm.output();
  EXPECT_TRUE(vm.expect(GetParam().cpus == 1 ? "online=0 root=0" : "online=0-3 root=0"))
      << vm.output();
  EXPECT_TRUE(vm.expect("minivmm-init: script exit=0")) << vm.output();
  EXPECT_EQ(vm.wait(), 0) << vm.output();
}

INSTANTIATE_TEST_SUITE_P(Kernels, BootTest,
                         ::testing::Values(Boot{"cloud", 1}, Boot{"cloud", 4}, Boot{"generic", 1},
                                           Boot{"generic", 4}, Boot{"backports-cloud", 1},
                                           Boot{"backports-cloud", 4}),
                         [](const ::testing::TestParamInfo<Boot>& boot) {
                           std::string name = boot.param.kernel;
                           std::erase(name, '-');
                           return name + "_" + std::to_string(boot.param.cpus);
                         });

TEST(BootPathTest, TheKernelsOwnStub) {
  Guest guest;
  guest.script("true\n");
  VmProcess vm(guest.run({"--boot=stub"}));
  EXPECT_TRUE(vm.expect("minivmm-init: ready kernel=" + guest.release())) << vm.output();
  EXPECT_EQ(vm.wait(), 0) << vm.output();
}

TEST(BootPathTest, AnElfVmlinuxByPvh) {
  Guest guest;
  guest.script("true\n");
  // The vmlinux inside Debian's bzImage has the PVH note.
  auto file = base::Mapping::file(guest.kernel_path());
  ASSERT_TRUE(file) << file.error().text();
  auto image = vmm::boot::parse_bzimage(file->bytes());
  ASSERT_TRUE(image) << image.error().text();
  auto source = vmm::boot::unpacking_source(image->payload);
  ASSERT_TRUE(source) << source.error().text();
  std::ofstream vmlinux(guest.path("vmlinux"), std::ios::binary);
  std::vector<char> buffer(1 << 20);
  for (;;) {
    auto got = (*source)->read(std::as_writable_bytes(std::span(buffer)));
    ASSERT_TRUE(got) << got.error().text();
    vmlinux.write(buffer.data(), static_cast<std::streamsize>(*got));
    if (*got < buffer.size()) break;
  }
  vmlinux.close();
  VmProcess vm({"run", "--kernel", guest.path("vmlinux"), "--initrd", guest.initrd_path(),
                "--cmdline", "quiet", "--memory", "256M"});
  EXPECT_TRUE(vm.expect("minivmm-init: ready kernel=" + guest.release())) << vm.output();
  EXPECT_EQ(vm.wait(), 0) << vm.output();
}

TEST(BootPathTest, MemoryAboveTheHole) {
  Guest guest;
  guest.script(
      "grep -E 'System RAM' /proc/iomem\n"
      "echo total=$(awk '/MemTotal/ {print int($2 / 1048576)}' /proc/meminfo)\n");
  VmProcess vm(guest.run({"--memory", "6G"}));
  // 3 GiB below the hole, the other 3 from 4 GiB to 7 GiB; the kernel itself takes some.
  EXPECT_TRUE(vm.expect("00100000-bfffffff : System RAM")) << vm.output();
  EXPECT_TRUE(vm.expect("100000000-1bfffffff : System RAM")) << vm.output();
  EXPECT_TRUE(vm.expect("total=5")) << vm.output();
  EXPECT_EQ(vm.wait(), 0) << vm.output();
}

TEST(BootPathTest, ManyCpus) {
  Guest guest;
  guest.script("echo online=$(cat /sys/devices/system/cpu/online)\n");
  VmProcess vm(guest.run({"--cpus", "16", "--memory", "512M"}));
  EXPECT_TRUE(vm.expect("online=0-15")) << vm.output();
  EXPECT_EQ(vm.wait(), 0) << vm.output();
}

}  // namespace
}  // namespace linux_tests
