#include "vmm/base/thread.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <system_error>
#include <utility>

namespace base {

Result<std::thread> start_thread(std::string name, std::function<void()> body, int taken) {
  name.resize(std::min<size_t>(name.size(), 15));
  // Its mask is that of who makes it, so that no signal finds it before it has set its own.
  sigset_t mask, before;
  sigfillset(&mask);
  if (taken != 0) sigdelset(&mask, taken);
  pthread_sigmask(SIG_SETMASK, &mask, &before);
  Result<std::thread> made;
  try {
    // Named from inside: from outside that is a file of /proc, and slow.
    made = std::thread([name, body = std::move(body)] {
      pthread_setname_np(pthread_self(), name.c_str());
      body();
    });
  } catch (const std::system_error& error) {
    made = fail("start thread " + name, error.code().value());
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return made;
}

void run_elsewhere(std::thread& thread) {
  cpu_set_t cpus;
  CPU_ZERO(&cpus);
  if (sched_getaffinity(0, sizeof cpus, &cpus) != 0) return;
  if (int here = sched_getcpu(); here >= 0) CPU_CLR(static_cast<size_t>(here), &cpus);
  pthread_setaffinity_np(thread.native_handle(), sizeof cpus, &cpus);  // fails with no CPU left
}

void run_anywhere(std::thread::native_handle_type thread) {
  cpu_set_t cpus;
  if (sched_getaffinity(getpid(), sizeof cpus, &cpus) != 0) return;
  pthread_setaffinity_np(thread, sizeof cpus, &cpus);
}

}  // namespace base
