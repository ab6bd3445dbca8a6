#include "vmm/base/thread.h"

#include <pthread.h>
#include <signal.h>

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

CpusApart::CpusApart(std::thread& other) : other_(other.native_handle()) {
  const int here = sched_getcpu();
  if (here < 0 || sched_getaffinity(0, sizeof before_, &before_) != 0) return;
  cpu_set_t rest = before_, own;
  CPU_ZERO(&own);
  CPU_SET(static_cast<size_t>(here), &own);
  CPU_CLR(static_cast<size_t>(here), &rest);
  if (pthread_setaffinity_np(other_, sizeof rest, &rest) != 0) return;  // no CPU is left
  apart_ = true;
  sched_setaffinity(0, sizeof own, &own);
}

void CpusApart::end() {
  if (!apart_) return;
  apart_ = false;
  sched_setaffinity(0, sizeof before_, &before_);
  pthread_setaffinity_np(other_, sizeof before_, &before_);
}

}  // namespace base
