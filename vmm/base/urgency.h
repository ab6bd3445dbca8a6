// For as long as a guest stands still: the threads it waits for go before all others of the host.
// Otherwise, on a host with more to do than processors, each of them may wait for others' time
// slices, which are milliseconds. Real-time scheduling (sched(7)) needs CAP_SYS_NICE, or a limit of
// RLIMIT_RTPRIO above 0; without them nothing changes.
#pragma once

#include <sys/types.h>

#include <utility>
#include <vector>

#include "vmm/base/result.h"

namespace base {

class Urgency {
 public:
  // The calling thread becomes urgent, and those of `threads` (thread IDs of this process; 0:
  // none). A thread that has a real-time policy or a deadline already keeps it.
  explicit Urgency(const std::vector<pid_t>& threads);
  // On the same thread.
  ~Urgency();
  Urgency(const Urgency&) = delete;
  Urgency& operator=(const Urgency&) = delete;

 private:
  std::vector<std::pair<pid_t, int>> before_;  // who was made urgent, and the policy it had
};

// May this process make threads urgent? The error says what to do.
Result<void> may_be_urgent();

}  // namespace base
