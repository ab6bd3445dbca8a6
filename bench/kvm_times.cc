// Linked into a virtual machine monitor, or loaded into any one (LD_PRELOAD): when a vCPU first
// enters the guest, and how much of the time until then was spent in KVM's calls: while any thread
// is in one, which is not what other threads do meanwhile.
//
// KVM_TIMES=FILE: where one line goes at the first KVM_RUN, "ENTERED IN_KVM CPU CPU_IN_KVM EXEC
// PID": when that was by CLOCK_MONOTONIC, the time in KVM's calls, the CPU time of the process and
// the part of it in KVM's calls, all in nanoseconds; EXEC is when it was executed, where
// bench/launch did so, otherwise 0. CPU time says something on a loaded machine too. The process
// goes on.
#include <fcntl.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <mutex>

namespace {

std::atomic<bool> entered = false;
std::mutex mutex;  // guards what follows
unsigned active = 0;
uint64_t since = 0, in_kvm_ns = 0, cpu_in_kvm_ns = 0;

uint64_t now_ns(clockid_t clock = CLOCK_MONOTONIC) {
  timespec time{};
  ::clock_gettime(clock, &time);
  return static_cast<uint64_t>(time.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(time.tv_nsec);
}

void report() {
  if (entered.exchange(true)) return;
  uint64_t now = now_ns();
  uint64_t cpu = now_ns(CLOCK_PROCESS_CPUTIME_ID);
  std::lock_guard lock(mutex);
  const char* path = std::getenv("KVM_TIMES");
  if (path == nullptr) return;
  const char* exec_ns = std::getenv("EXEC_NS");
  int fd = ::open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (fd < 0 || ::dprintf(fd, "%lu %lu %lu %lu %s %d\n", now, in_kvm_ns, cpu, cpu_in_kvm_ns,
                          exec_ns != nullptr ? exec_ns : "0", ::getpid()) < 0) {
    std::perror("kvm_times");
  }
  ::close(fd);
}

}  // namespace

// As the C library declares it.
extern "C" int ioctl(int fd, unsigned long request, ...) noexcept {
  // What the C library's is on Linux; it cannot be asked for where it is linked statically.
  auto real = [](int to, unsigned long what, void* with) {
    return static_cast<int>(::syscall(SYS_ioctl, to, what, with));
  };
  va_list arguments;
  va_start(arguments, request);
  void* argument = va_arg(arguments, void*);
  va_end(arguments);
  if (entered.load(std::memory_order_relaxed) || _IOC_TYPE(request) != KVMIO) {
    return real(fd, request, argument);
  }
  if (request == KVM_RUN) {
    report();
    return real(fd, request, argument);
  }
  {
    std::lock_guard lock(mutex);
    if (active++ == 0) since = now_ns();
  }
  uint64_t cpu = now_ns(CLOCK_THREAD_CPUTIME_ID);
  int result = real(fd, request, argument);
  cpu = now_ns(CLOCK_THREAD_CPUTIME_ID) - cpu;
  std::lock_guard lock(mutex);
  cpu_in_kvm_ns += cpu;
  if (--active == 0) in_kvm_ns += now_ns() - since;
  return result;
}
