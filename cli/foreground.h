// What the main thread does while a machine runs: wait for its end, for signals and for keys.
//
//   SIGTERM, SIGINT, SIGHUP  first the power button, the second time stop; SIGTERM takes a snapshot
//                            instead and ends the machine where that was asked for
//   SIGUSR1                  a snapshot now
//   SIGTSTP, SIGCONT         the terminal is given back while the process is stopped
//   keys                     Ctrl-A commands (escape_keys.h), everything else to the guest
//
// Owned and run by the main thread, whose signals it blocks; the others take none of them
// (vmm/base/thread.h).
#pragma once

#include <signal.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "cli/escape_keys.h"
#include "cli/terminal.h"
#include "vmm/base/fd.h"
#include "vmm/base/result.h"

namespace cli {

class Foreground {
 public:
  struct Machine {
    std::string name;  // for the hint of Ctrl-A c
    int ended = -1;    // readable from the moment the machine has ended; never read from
    // Called on the main thread, none may block.
    std::function<void()> power_button;
    std::function<void()> stop;
    std::function<void()> snapshot;
    std::function<void()> snapshot_and_stop;  // empty: SIGTERM is the power button too
    // Takes what it has room for and returns how much; input_room() says when there is room
    // again. Empty: the guest has no console, the terminal stays as it is.
    std::function<size_t(std::span<const uint8_t>)> push_input;
  };

  static base::Result<std::unique_ptr<Foreground>> create();
  ~Foreground();

  // Any thread, locks of devices held: it only wakes the main thread.
  void input_room() { room_.signal(); }

  // Before the machine runs: true from the moment `fd` can be read, or has ended; false where a
  // signal asks for the end first.
  base::Result<bool> wait(int fd);

  // Returns when the machine has ended, with the terminal restored. `input` is usually 0, stdin;
  // end of file there ends the input, not the machine.
  base::Result<void> run(const Machine& machine, int input);

 private:
  Foreground(base::Fd signals, base::EventFd room)
      : signals_(std::move(signals)), room_(std::move(room)) {}
  void take_signal(const Machine& machine, Terminal& terminal);
  void read_input(const Machine& machine, const Terminal& terminal, int input);
  void flush_input(const Machine& machine);

  base::Fd signals_;
  base::EventFd room_;
  sigset_t mask_before_{};
  bool asked_to_end_ = false;
  bool input_open_ = true;
  EscapeKeys keys_;
  std::vector<uint8_t> pending_;  // input the guest has no room for yet
};

}  // namespace cli
