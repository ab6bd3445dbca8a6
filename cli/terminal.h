// The terminal minivmm was started on, in raw mode while a guest has it. It is put back as it was
// on every way out: the destructor, exit(), and signals that kill the process (only SIGKILL leaves
// it raw). One object at a time, owned and used by the main thread.
#pragma once

#include <memory>

#include "vmm/base/result.h"

namespace cli {

class Terminal {
 public:
  // `fd` need not be a terminal, a pipe for example: then there is nothing to set or restore.
  // A terminal whose foreground job is another one is left alone until resume() finds us there.
  static base::Result<std::unique_ptr<Terminal>> open(int fd);
  ~Terminal();

  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;

  bool is_terminal() const { return is_terminal_; }
  // Whether bytes from the descriptor are the guest's: always for a pipe, for a terminal while it
  // is raw. Reading from a terminal of another job would stop this process (SIGTTIN).
  bool may_read() const { return !is_terminal_ || raw_; }

  // The terminal of whatever object there is. Any thread, async-signal-safe.
  static void put_back();
  // The same for who ends the process by _Exit() next: whoever would make it raw waits until then.
  static void leave();

  // Before the process is stopped, and after it goes on (SIGTSTP, SIGCONT).
  void suspend();
  void resume();

 private:
  explicit Terminal(int fd) : fd_(fd) {}

  int fd_;
  bool is_terminal_ = false;
  bool raw_ = false;
};

}  // namespace cli
