#include "vmm/base/urgency.h"

#include <sched.h>

#include <cerrno>
#include <ranges>

namespace base {
namespace {

constexpr pid_t kCaller = 0;

// Threads made meanwhile, io_uring's among them, are not urgent. The flag stays: who may make a
// thread urgent need not be allowed to take it away.
int set_policy(pid_t thread, int policy) {
  const sched_param param{.sched_priority = policy == SCHED_FIFO ? 1 : 0};
  return ::sched_setscheduler(thread, policy | SCHED_RESET_ON_FORK, &param) == 0 ? 0 : errno;
}

int policy_of(pid_t thread) {
  int policy = ::sched_getscheduler(thread);
  return policy < 0 ? policy : policy & ~SCHED_RESET_ON_FORK;
}

bool is_ordinary(int policy) {
  return policy == SCHED_OTHER || policy == SCHED_BATCH || policy == SCHED_IDLE;
}

}  // namespace

Urgency::Urgency(const std::vector<pid_t>& threads) {
  before_.reserve(threads.size() + 1);
  auto raise = [this](pid_t thread) {
    int policy = policy_of(thread);
    if (is_ordinary(policy) && set_policy(thread, SCHED_FIFO) == 0)
      before_.emplace_back(thread, policy);
  };
  raise(kCaller);
  for (pid_t thread : threads) {
    if (thread != 0) raise(thread);
  }
}

Urgency::~Urgency() {
  // The caller last: who waits for its processor would keep it from the others.
  for (auto [thread, policy] : before_ | std::views::reverse) set_policy(thread, policy);
}

Result<void> may_be_urgent() {
  int policy = policy_of(kCaller);
  if (!is_ordinary(policy)) return {};
  int error = set_policy(kCaller, SCHED_FIFO);
  if (error != 0) return fail("real-time scheduling", error);
  set_policy(kCaller, policy);
  return {};
}

}  // namespace base
