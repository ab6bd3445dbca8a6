// The clones of one `minivmm restore --clones` as the process that made them sees them: says how
// far each one is, passes signals on, and starts those made ahead (--warm) when it is asked to.
//
//   this process                     a clone's process
//   ------------                     -----------------
//   add() ─────────── fork ────────> CloneLink
//              <───── kReady ─────── everything is made but the guest's state   (--warm only)
//   a line of input ─ one byte ────> the state is set
//              <───── kRunning ───── the guest runs
//
// The link's end without a byte: the other process ended, or the clone is not wanted any more.
#pragma once

#include <signal.h>
#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cli/foreground.h"
#include "snapshot/store/snapshot.h"
#include "vmm/base/fd.h"
#include "vmm/base/result.h"

namespace cli {

// A clone's end.
class CloneLink {
 public:
  // `made_ahead`: wait_to_begin() waits.
  CloneLink(base::Fd fd, bool made_ahead) : fd_(std::move(fd)), made_ahead_(made_ahead) {}

  // What the first process holds, until wait_to_begin(): the machine holds it itself by then.
  void keep(std::shared_ptr<snapshot::Snapshot::Hold> hold) { hold_ = std::move(hold); }
  // Whether the guest is to go on now; false: never.
  base::Result<bool> wait_to_begin(Foreground& foreground);
  void say_running();

 private:
  base::Fd fd_;
  bool made_ahead_;
  std::shared_ptr<snapshot::Snapshot::Hold> hold_;
};

class CloneSet {
 public:
  // Called while the process has one thread: blocks the signals that it takes.
  static base::Result<CloneSet> create(bool as_json, bool made_ahead);

  // A new process, which goes on as the clone: there, its link is returned and nothing of this set
  // is left.
  base::Result<std::optional<CloneLink>> add(const std::string& name);

  // Until all have ended. Where they are made ahead, each line of `input` starts one, or is used up
  // by one that fails to; those that were not started when it ends, or when a signal asks for the
  // end, are let go. The exit status: 0 where each clone's was, else the first other one.
  base::Result<int> stay(int input);
  // Ends all, where not all can be made; those made ahead leave by themselves and take what they
  // have in the store with them.
  void give_up();

 private:
  enum class State { kMade, kReady, kBegun, kRunning };
  struct Clone {
    pid_t pid = -1;
    std::string name;
    base::Fd link;  // none: nothing is expected of it but its end
    State state = State::kMade;
  };
  CloneSet(bool as_json, bool made_ahead) : as_json_(as_json), made_ahead_(made_ahead) {}
  void take_signal();
  void reap();
  void read_requests(int input);
  void take_state(Clone& clone);
  void serve_requests();
  void say(const Clone& clone, const char* state, int status = -1) const;

  bool as_json_, made_ahead_;
  sigset_t mask_before_{};
  base::Fd signals_;
  std::vector<Clone> clones_;
  uint64_t requests_ = 0;  // not served yet
  bool more_requests_ = true;
  bool half_a_line_ = false;  // what was read last has no end yet
  int status_ = 0;
};

}  // namespace cli
