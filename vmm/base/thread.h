// The threads that live as long as what they serve: a vCPU, a device, the pager.
#pragma once

#include <functional>
#include <string>
#include <thread>

#include "vmm/base/result.h"

namespace base {

// Starts `body` on a thread called `name` (for ps and gdb; 15 characters of it). It takes no
// signal, which are the main thread's, but `taken` where that is not 0.
Result<std::thread> start_thread(std::string name, std::function<void()> body, int taken = 0);

// Lets `thread`, which was just started, run on another CPU than the caller's, at once: a scheduler
// that keeps few CPUs busy has put it behind the caller. Does nothing where there is one CPU.
void run_elsewhere(std::thread& thread);
// Takes it back: `thread` may run where the main thread may now. (Of CPUs that the main thread is
// given later it hears nothing.)
void run_anywhere(std::thread::native_handle_type thread);

}  // namespace base
