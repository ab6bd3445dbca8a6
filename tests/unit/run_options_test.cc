#include "cli/run_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace cli {
namespace {

using testing::HasSubstr;

// As `minivmm run` does it: the error is the parser's or the check's.
base::Result<RunOptions> parse(std::vector<std::string> arguments) {
  Syntax syntax("run", "");
  RunOptions options;
  add_run_options(syntax, options);
  std::vector<const char*> words;
  for (const std::string& argument : arguments) words.push_back(argument.c_str());
  TRY(syntax.parse(words));
  TRY(check_run_options(options));
  return options;
}

std::string error_of(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), {"--kernel", "k"});
  auto options = parse(std::move(arguments));
  return options ? "no error" : options.error().text();
}

TEST(RunOptions, HaveDefaults) {
  RunOptions options = *parse({"--kernel", "k"});
  EXPECT_EQ(options.kernel, "k");
  EXPECT_EQ(options.memory_bytes, 256u << 20);
  EXPECT_EQ(options.cpus, 1u);
  EXPECT_EQ(options.boot, vmm::boot::BootPath::kDirect);
  EXPECT_EQ(options.console, ConsoleKind::kSerial);
  EXPECT_EQ(options.log_level, base::LogLevel::kWarning);
  EXPECT_TRUE(options.disks.empty());
  EXPECT_TRUE(options.nets.empty());
  EXPECT_FALSE(options.rng);
  EXPECT_FALSE(options.balloon);
  EXPECT_FALSE(options.vsock);
}

TEST(RunOptions, AreAllRead) {
  RunOptions options = *parse({"--kernel",    "k",
                               "--initrd",    "i",
                               "--cmdline",   "quiet x=1",
                               "--boot=stub", "--memory",
                               "1G",          "--cpus",
                               "64",          "--disk",
                               "a",           "--disk",
                               "b,ro",        "--net",
                               "user",        "--net",
                               "tap=t0",      "--rng",
                               "--vsock",     "cid=3,path=v",
                               "--balloon",   "--console",
                               "virtio",      "--name",
                               "job1",        "--api-socket",
                               "s",           "--log-level",
                               "debug"});
  EXPECT_EQ(options.initrd, "i");
  EXPECT_EQ(options.cmdline, "quiet x=1");
  EXPECT_EQ(options.boot, vmm::boot::BootPath::kStub);
  EXPECT_EQ(options.memory_bytes, 1u << 30);
  EXPECT_EQ(options.cpus, 64u);
  ASSERT_EQ(options.disks.size(), 2u);
  EXPECT_EQ(options.disks[0].path, "a");
  EXPECT_TRUE(options.disks[1].read_only);
  ASSERT_EQ(options.nets.size(), 2u);
  EXPECT_EQ(options.nets[1].tap, "t0");
  EXPECT_TRUE(options.rng);
  EXPECT_TRUE(options.balloon);
  EXPECT_EQ(options.vsock->cid, 3u);
  EXPECT_EQ(options.console, ConsoleKind::kVirtio);
  EXPECT_EQ(options.name, "job1");
  EXPECT_EQ(options.api_socket, "s");
  EXPECT_EQ(options.log_level, base::LogLevel::kDebug);
}

TEST(RunOptions, NeedAKernel) {
  auto options = parse({"--memory", "1G"});
  ASSERT_FALSE(options);
  EXPECT_THAT(options.error().text(), HasSubstr("no --kernel"));
}

TEST(RunOptions, EachErrorNamesItsOption) {
  EXPECT_THAT(error_of({"--memory", "256"}), HasSubstr("--memory: '256' is no size"));
  EXPECT_THAT(error_of({"--memory", "1M"}), HasSubstr("--memory: '1M' is out of range: 2 MiB"));
  EXPECT_THAT(error_of({"--memory", "2T"}), HasSubstr("out of range"));
  EXPECT_THAT(error_of({"--memory", "2049K"}), HasSubstr("no multiple of 1 MiB"));
  EXPECT_THAT(error_of({"--memory", "1T"}), HasSubstr("the host has"));
  EXPECT_THAT(error_of({"--cpus", "0"}), HasSubstr("--cpus: '0' is not a number from 1 to 64"));
  EXPECT_THAT(error_of({"--cpus", "65"}), HasSubstr("--cpus: '65'"));
  EXPECT_THAT(error_of({"--boot", "bios"}), HasSubstr("--boot: 'bios' is no way to boot"));
  EXPECT_THAT(error_of({"--console", "vga"}), HasSubstr("--console: 'vga' is no console"));
  EXPECT_THAT(error_of({"--disk", "a,rw"}), HasSubstr("--disk: 'rw' is not known"));
  EXPECT_THAT(error_of({"--net", "x"}), HasSubstr("--net: 'x' is no kind of network"));
  EXPECT_THAT(error_of({"--vsock", "cid=1,path=x"}), HasSubstr("--vsock: cid: '1'"));
  EXPECT_THAT(error_of({"--name", "../x"}), HasSubstr("--name: '../x' is no name"));
  EXPECT_THAT(error_of({"--name", ".x"}), HasSubstr("is no name"));
  EXPECT_THAT(error_of({"--name", std::string(65, 'n')}), HasSubstr("is no name"));
  EXPECT_THAT(error_of({"--api-socket", std::string(108, 's')}), HasSubstr("too long"));
  EXPECT_THAT(error_of({"--log-level", "loud"}), HasSubstr("--log-level: 'loud'"));
  EXPECT_THAT(error_of({"--staging", "4095K"}),
              HasSubstr("--staging: '4095K' is too little: a snapshot takes at least 4 MiB"));
  EXPECT_THAT(error_of({"--staging", "0M"}), HasSubstr("at least 4 MiB"));
  EXPECT_THAT(error_of({"--cmdline", "a\nb"}), HasSubstr("control characters"));
  EXPECT_THAT(error_of({"--cmdline", std::string(65536, 'x')}), HasSubstr("too long"));
}

TEST(RunOptions, TheSmallestPoolIsTakenAsItIsSaid) {
  EXPECT_EQ(parse({"--kernel", "k", "--staging", "4M"})->snapshots.staging_bytes, 4u << 20);
}

TEST(RunOptions, RefuseWhatIsNoOption) {
  EXPECT_THAT(error_of({"--color"}), HasSubstr("unknown option --color"));
  EXPECT_THAT(error_of({"word"}), HasSubstr("unexpected argument word"));
  EXPECT_THAT(error_of({"--disk", "a", "b"}), HasSubstr("unexpected argument b"));
  EXPECT_THAT(error_of({"--cpus", "1", "--cpus", "2"}), HasSubstr("--cpus"));
  EXPECT_THAT(error_of({"--initrd"}), HasSubstr("--initrd"));
  EXPECT_THAT(error_of({"--rng=2G"}), HasSubstr("rng"));
}

TEST(GuestCommandLine, PutsDefaultsFirst) {
  RunOptions options;
  EXPECT_EQ(guest_command_line(options), "console=ttyS0 panic=-1");
  options.cmdline = "quiet";
  EXPECT_EQ(guest_command_line(options), "console=ttyS0 panic=-1 quiet");
  options.console = ConsoleKind::kVirtio;
  EXPECT_EQ(guest_command_line(options), "console=hvc0 panic=-1 quiet");
  options.console = ConsoleKind::kNone;
  EXPECT_EQ(guest_command_line(options), "panic=-1 quiet");
}

TEST(GuestCommandLine, LeavesOutWhatTheUserSays) {
  RunOptions options;
  options.cmdline = "panic=10 x";
  EXPECT_EQ(guest_command_line(options), "console=ttyS0 panic=10 x");
  options.cmdline = "console=tty0 panic=0";
  EXPECT_EQ(guest_command_line(options), "console=tty0 panic=0");
  options.cmdline = "x panic";
  EXPECT_EQ(guest_command_line(options), "console=ttyS0 x panic");
  // Options of which the name is only a part.
  options.cmdline = "panic_on_oops=1 netconsole=x consoleblank=0";
  EXPECT_EQ(guest_command_line(options),
            "console=ttyS0 panic=-1 panic_on_oops=1 netconsole=x consoleblank=0");
}

}  // namespace
}  // namespace cli
