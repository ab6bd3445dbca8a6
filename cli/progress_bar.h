// What a person sees of a long pass: a bar on stderr where that is a terminal, nothing elsewhere.
// Ctrl-C and SIGTERM end the pass in good order as long as an Interruptible lives: what was begun
// is taken away, then the command ends.
//
// Owned by the command, on the main thread; the bar's report() may be called from any thread, one
// at a time.
#pragma once

#include <signal.h>

#include <chrono>
#include <cstdint>
#include <string>

#include "snapshot/progress.h"

namespace cli {

// Holds SIGINT, SIGTERM and SIGHUP back, so that they are asked for and do not strike. To be made
// before other threads are.
class Interruptible {
 public:
  Interruptible();
  Interruptible(const Interruptible&) = delete;
  Interruptible& operator=(const Interruptible&) = delete;
  ~Interruptible();
  // Has one of them come since this was made? Any thread, one at a time.
  bool interrupted();

 private:
  sigset_t waited_for_, before_;
  bool interrupted_ = false;
};

class ProgressBar {
 public:
  // `what` begins the line: "verify".
  explicit ProgressBar(std::string what);
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;
  ~ProgressBar();  // takes the line away

  snapshot::Progress progress() {
    return [this](uint64_t done, uint64_t total) { return report(done, total); };
  }

 private:
  bool report(uint64_t done, uint64_t total);

  std::string what_;
  Interruptible interruptible_;
  const bool visible_;
  bool drawn_ = false;
  std::chrono::steady_clock::time_point start_, last_;
};

// "verify [#####     ]  50 %  1.2 GiB of 2.4 GiB  512 MiB/s  2 s left", without end of line.
std::string progress_line(const std::string& what, uint64_t done, uint64_t total, double seconds);

}  // namespace cli
