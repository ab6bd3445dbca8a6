// The threads that live as long as what they serve: a vCPU, a device, the pager.
#pragma once

#include <sched.h>

#include <functional>
#include <string>
#include <thread>

#include "vmm/base/result.h"

namespace base {

// Starts `body` on a thread called `name` (for ps and gdb; 15 characters of it). It takes no
// signal, which are the main thread's, but `taken` where that is not 0.
Result<std::thread> start_thread(std::string name, std::function<void()> body, int taken = 0);

// While it lasts, a thread that was just started and its maker, who owns this, have no CPU in
// common: neither waits for the other. (A scheduler that keeps few CPUs busy puts a new thread
// behind its maker, and wakes who waited for a disk behind whom the interrupt met.) Does nothing
// where there is one CPU. A thread that is started meanwhile has its maker's CPU only.
class CpusApart {
 public:
  // The maker stays where it is, `other` gets the rest.
  explicit CpusApart(std::thread& other);
  // Both may run where the maker might before, while `other` is not joined.
  void end();

 private:
  std::thread::native_handle_type other_;
  cpu_set_t before_;
  bool apart_ = false;
};

}  // namespace base
