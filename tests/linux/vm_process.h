// A `minivmm` process of a test: started with arguments, watched through its standard output, given
// input, signalled, waited for. Killed when the object goes.
//
// Time limits are there so that a test which hangs ends; none of them judges speed (the emulated
// lab is slow, and shared).
#pragma once

#include <sys/types.h>

#include <chrono>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "vmm/base/fd.h"

namespace linux_tests {

inline constexpr std::chrono::seconds kPatience{240};

class VmProcess {
 public:
  enum class Input { kPipe, kTerminal };
  // It can have so many descriptors, 0: as many as the test.
  explicit VmProcess(const std::vector<std::string>& arguments, Input input = Input::kPipe,
                     unsigned descriptors = 0);
  ~VmProcess();

  // Waits until `text` appears in the output after what the last expect() found; false at the end
  // of the output or of patience, and as soon as `unless` appears there before it.
  bool expect(std::string_view text, std::string_view unless = {});
  // Takes up what has come, without waiting.
  void read_available();
  void send(std::string_view input) const;
  void signal(int number) const;
  // Reads the output to its end and returns the exit status, 128 + n for a process killed by
  // signal n; none where patience ends first.
  std::optional<int> wait();

  // What came so far, standard error included.
  const std::string& output() const { return output_; }
  // The offset in it behind what the last expect() found.
  size_t seen() const { return seen_; }
  pid_t pid() const { return pid_; }
  // Has the process made its terminal raw (Input::kTerminal)?
  bool raw() const;

 private:
  // False at the end of the output, or at `deadline`.
  bool read_more(std::chrono::steady_clock::time_point deadline);

  pid_t pid_ = -1;
  base::Fd input_;  // the pipe's end, or the terminal's master side
  base::Fd out_;
  std::string output_;
  size_t seen_ = 0;
};

// Runs `minivmm` to its end with nothing on its standard input.
struct Finished {
  int status = -1;
  std::string output;
};
Finished run_minivmm(const std::vector<std::string>& arguments);

}  // namespace linux_tests
