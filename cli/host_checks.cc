#include "cli/host_checks.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/userfaultfd.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <string_view>

#include "cli/size.h"
#include "devices/virtio/net_user.h"
#include "vmm/base/fd.h"
#include "vmm/base/io_uring.h"
#include "vmm/base/urgency.h"

namespace cli {
namespace {

using State = HostCheck::State;

HostCheck named(const char* name) {
  HostCheck check;
  check.name = name;
  return check;
}

// The start of a small file of /proc or /sys, without the line's end; empty where it is missing.
std::string read_text(const std::string& path) {
  auto fd = base::open_file(path, O_RDONLY);
  if (!fd) return "";
  std::string text(64 * 1024, '\0');
  ssize_t count = ::read(fd->get(), text.data(), text.size());
  text.resize(static_cast<size_t>(std::max<ssize_t>(count, 0)));
  while (text.ends_with('\n')) text.pop_back();
  return text;
}

bool cpu_has(std::string_view flag) {
  return read_text("/proc/cpuinfo").find(fmt::format(" {} ", flag)) != std::string::npos;
}

HostCheck check_kvm(const vmm::KvmProbe& kvm) {
  HostCheck check = named("kvm");
  if (kvm.ring0 != vmm::Ring0::kAbsent) {
    check.found = "/dev/kvm is usable, API version 12";
    return check;
  }
  check.state = State::kMissing;
  check.found = kvm.problem;
  struct stat info{};
  if (::access("/dev/kvm", R_OK | W_OK) == 0) {
    check.advice = "another hypervisor may be using the processor: see the kernel's log (dmesg)";
  } else if (::stat("/dev/kvm", &info) == 0) {
    check.advice = "sudo usermod -aG kvm $USER, then log in again";
  } else if (cpu_has("vmx")) {
    check.advice = "sudo modprobe kvm_intel";
  } else if (cpu_has("svm")) {
    check.advice = "sudo modprobe kvm_amd";
  } else {
    check.advice =
        "the processor offers no virtualisation: enable VT-x or SVM in the firmware; in a virtual "
        "machine, nested virtualisation on its host";
  }
  return check;
}

HostCheck without_kvm(const char* name) {
  HostCheck check = named(name);
  check.state = State::kMissing;
  check.found = "not measured: no guest can run";
  check.advice = "see kvm";
  return check;
}

HostCheck check_ring0(const vmm::KvmProbe& kvm) {
  if (kvm.ring0 == vmm::Ring0::kAbsent) return without_kvm("ring0");
  HostCheck check = named("ring0");
  check.found = fmt::format("{}, {:.1f} million instructions a second", ring0_name(kvm.ring0),
                            kvm.instructions_per_second / 1e6);
  if (kvm.ring0 == vmm::Ring0::kEmulated) {
    check.state = State::kLimited;
    check.advice =
        "this KVM emulates kernel code: payload guests run, Linux does not get through its boot; "
        "use a host with hardware virtualisation, or tools/lab.sh";
  }
  return check;
}

HostCheck check_dirty_log(const vmm::KvmProbe& kvm) {
  if (kvm.ring0 == vmm::Ring0::kAbsent) return without_kvm("dirty_log");
  HostCheck check = named("dirty_log");
  check.found =
      fmt::format("dirty ring: {}, manual protection of the dirty log: {}",
                  kvm.dirty_ring ? "yes" : "no", kvm.manual_dirty_log_protect ? "yes" : "no");
  if (!kvm.manual_dirty_log_protect) {
    check.state = State::kMissing;
    check.advice = "machines need it: Linux 5.7 or newer has it";
  } else if (!kvm.dirty_ring) {
    check.advice = "Linux 5.11 or newer has the dirty ring";
  }
  return check;
}

HostCheck check_userfaultfd() {
  HostCheck check = named("userfaultfd");
  auto open_with = [](int flags) -> int {  // 0 or errno
    base::Fd fd(static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | flags)));
    return fd ? 0 : errno;
  };
  // KVM touches guest memory from the kernel, so faults of user space alone are not enough.
  int error = open_with(0);
  if (error == 0 || base::open_file("/dev/userfaultfd", O_RDWR)) {
    check.found = "usable, faults of the kernel too";
    return check;
  }
  check.state = State::kLimited;
  if (error == ENOSYS) {
    check.found = "not in this kernel";
    check.advice = "restores read all memory first: a kernel with CONFIG_USERFAULTFD is needed";
  } else {
    check.found = open_with(UFFD_USER_MODE_ONLY) == 0 ? "faults of user space only" : "not allowed";
    check.advice =
        "sudo sysctl vm.unprivileged_userfaultfd=1, or give yourself access to /dev/userfaultfd";
  }
  return check;
}

HostCheck check_io_uring() {
  HostCheck check = named("io_uring");
  io_uring ring{};
  int error = ::io_uring_queue_init(2, &ring, 0);
  if (error == 0) {
    ::io_uring_queue_exit(&ring);
    check.found = "usable";
    return check;
  }
  check.state = State::kMissing;
  check.found = std::strerror(-error);
  check.advice = error == -ENOSYS ? "disks need Linux 5.6 or newer with CONFIG_IO_URING"
                                  : "sudo sysctl kernel.io_uring_disabled=0; in a container, its "
                                    "seccomp profile must allow io_uring";
  return check;
}

HostCheck check_real_time() {
  HostCheck check = named("real_time");
  if (auto may = base::may_be_urgent(); may) {
    check.found = "allowed: snapshots pause a guest for as short on a busy host";
    return check;
  }
  check.state = State::kLimited;
  check.found = "not allowed: on a busy host a pause may take milliseconds";
  rlimit priority{}, time{};
  ::getrlimit(RLIMIT_RTPRIO, &priority);
  ::getrlimit(RLIMIT_RTTIME, &time);
  if (time.rlim_cur != RLIM_INFINITY) {
    check.advice =
        "take the limit on real-time away: ulimit -R unlimited, in a systemd unit "
        "LimitRTTIME=infinity";
  } else if (::geteuid() == 0 || priority.rlim_cur >= 2) {
    check.advice =
        "the control group (or container) does not allow it: give its cpu.rt_runtime_us "
        "a value, or the container CAP_SYS_NICE";
  } else {
    check.advice =
        "echo \"$USER - rtprio 2\" | sudo tee -a /etc/security/limits.conf, then log in again; in "
        "a systemd unit LimitRTPRIO=2";
  }
  return check;
}

HostCheck check_huge_pages() {
  HostCheck check = named("huge_pages");
  std::string mode = read_text("/sys/kernel/mm/transparent_hugepage/enabled");
  size_t open = mode.find('[');
  size_t close = mode.find(']');
  std::string chosen = open == std::string::npos || close == std::string::npos
                           ? "not in this kernel"
                           : mode.substr(open + 1, close - open - 1);
  std::string reserved = read_text("/proc/sys/vm/nr_hugepages");
  check.found =
      fmt::format("transparent: {}, reserved: {}", chosen, reserved.empty() ? "none" : reserved);
  if (chosen != "always" && chosen != "madvise") {
    check.state = State::kLimited;
    check.advice = "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled";
  }
  return check;
}

HostCheck check_memory() {
  HostCheck check = named("memory");
  // "MemAvailable:   12345 kB"
  std::string text = read_text("/proc/meminfo");
  auto bytes_of = [&](std::string_view key) -> uint64_t {
    size_t at = text.find(key);
    return at == std::string::npos
               ? 0
               : std::strtoull(text.c_str() + at + key.size(), nullptr, 10) << 10;
  };
  uint64_t available = bytes_of("MemAvailable:");
  check.found =
      fmt::format("{} of {} available", format_size(available), format_size(bytes_of("MemTotal:")));
  if (available < (uint64_t{512} << 20)) {
    check.state = State::kLimited;
    check.advice = "end something, or give machines less --memory";
  }
  return check;
}

HostCheck check_tun() {
  HostCheck check = named("tap");
  auto tun = base::open_file("/dev/net/tun", O_RDWR);
  if (tun) {
    check.found = "/dev/net/tun can be opened";
    return check;
  }
  check.state = State::kLimited;
  check.found = tun.error().text();
  check.advice = tun.error().os_error() == EACCES
                     ? "ask the administrator for access, or use --net user"
                     : "sudo modprobe tun, or use --net user";
  return check;
}

HostCheck check_user_network() {
  HostCheck check = named("user_network");
  if (auto network = virtio::UserNetwork::start({}); network) {
    check.found = "minivmm-slirp is there, and starts";
  } else {
    check.state = State::kLimited;
    check.found = network.error().text();
    check.advice =
        "minivmm-slirp belongs beside minivmm and needs libslirp (sudo apt install libslirp0); "
        "--net tap=NAME goes without it";
  }
  return check;
}

}  // namespace

const char* state_name(HostCheck::State state) {
  switch (state) {
    case State::kOk:
      return "ok";
    case State::kLimited:
      return "limited";
    case State::kMissing:
      return "missing";
  }
  return "missing";
}

std::vector<HostCheck> check_host(const vmm::KvmProbe& kvm) {
  return {check_kvm(kvm),   check_ring0(kvm),    check_dirty_log(kvm), check_userfaultfd(),
          check_io_uring(), check_real_time(),   check_huge_pages(),   check_memory(),
          check_tun(),      check_user_network()};
}

}  // namespace cli
