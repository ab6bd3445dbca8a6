// For as long as a guest is held: the threads that it waits for go before all others of the host.
// Otherwise, on a host with more to do than processors, each of them may wait for others' time
// slices, which are milliseconds. Real-time scheduling (sched(7)) needs CAP_SYS_NICE, or a limit of
// RLIMIT_RTPRIO of at least 2; without them nothing changes.
//
// A real-time thread gives way to no ordinary one, and a guest's code never ends. So those who are
// held are raised once they were told to leave the guest, by somebody who goes before them: they
// cannot keep him from letting them go and lowering them, which he does without a wait in between.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <utility>
#include <vector>

#include "vmm/base/result.h"

namespace base {

class Urgency {
 public:
  // Raising up to so many threads allocates nothing.
  explicit Urgency(size_t threads) { before_.reserve(threads); }
  ~Urgency() { lower(); }
  Urgency(const Urgency&) = delete;
  Urgency& operator=(const Urgency&) = delete;

  // The calling thread, who holds a guest.
  void raise_caller();
  // A thread of this process that is held, by its ID (0: none); nothing where the caller is not
  // urgent himself. One that has a real-time policy already, or a deadline, keeps it.
  void raise(pid_t thread);
  // Back to what they were, the last one raised first.
  void lower();

 private:
  void raise(pid_t thread, int priority);
  std::vector<std::pair<pid_t, int>> before_;  // who was raised, and the policy it had
};

// May this process make threads urgent? The error says why not.
Result<void> may_be_urgent();

}  // namespace base
