#include "vmm/base/urgency.h"

#include <sched.h>
#include <sys/resource.h>

#include <cerrno>
#include <ranges>

namespace base {
namespace {

constexpr pid_t kCaller = 0;
constexpr int kHeld = 1, kHolder = 2;  // priorities of SCHED_FIFO
constexpr int kOrdinary = 0;

int set_policy(pid_t thread, int policy, int priority) {
  const sched_param param{.sched_priority = priority};
  return ::sched_setscheduler(thread, policy, &param) == 0 ? 0 : errno;
}

// Threads it makes meanwhile, io_uring's among them, are ordinary ones.
int make_urgent(pid_t thread, int priority) {
  return set_policy(thread, SCHED_FIFO | SCHED_RESET_ON_FORK, priority);
}

void make_ordinary(pid_t thread, int policy) {
  // Who may make a thread urgent need not be allowed to take that flag away again.
  if (set_policy(thread, policy, kOrdinary) == EPERM)
    set_policy(thread, policy | SCHED_RESET_ON_FORK, kOrdinary);
}

bool is_real_time(int policy) {
  policy &= ~SCHED_RESET_ON_FORK;
  return policy == SCHED_FIFO || policy == SCHED_RR || policy == SCHED_DEADLINE;
}

// The kernel adds up a thread's real-time moments until it sleeps in one of them, and ends the
// process at the limit (setrlimit(2)): many short ones would get there.
bool is_limited() {
  rlimit limit{};
  return ::getrlimit(RLIMIT_RTTIME, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY;
}

}  // namespace

void Urgency::raise_caller() { raise(kCaller, kHolder); }

void Urgency::raise(pid_t thread) {
  sched_param caller{};
  if (thread == 0 || ::sched_getparam(kCaller, &caller) < 0 || caller.sched_priority <= kHeld)
    return;
  raise(thread, kHeld);
}

void Urgency::raise(pid_t thread, int priority) {
  if (is_limited()) return;
  int policy = ::sched_getscheduler(thread);
  if (policy >= 0 && !is_real_time(policy) && make_urgent(thread, priority) == 0)
    before_.emplace_back(thread, policy);
}

void Urgency::lower() {
  for (auto [thread, policy] : before_ | std::views::reverse) make_ordinary(thread, policy);
  before_.clear();
}

Result<void> may_be_urgent() {
  if (is_limited()) return fail("RLIMIT_RTTIME limits real-time threads");
  int policy = ::sched_getscheduler(kCaller);
  if (is_real_time(policy)) return {};
  int error = make_urgent(kCaller, kHolder);
  if (error != 0) return fail("real-time scheduling", error);
  make_ordinary(kCaller, policy);
  return {};
}

}  // namespace base
