// A thread that does what takes long while its owner goes on with something else.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "vmm/base/result.h"

namespace base {

// One task after the other, in the order in which they were given, at first on another CPU than the
// owner's where there is one. Owned and used by one thread. Where no thread can be made, tasks
// are done by who gives them.
class Aside {
 public:
  // `name` as for start_thread().
  explicit Aside(std::string name);
  // Returns when everything that was given is done.
  ~Aside();
  Aside(const Aside&) = delete;
  Aside& operator=(const Aside&) = delete;

  void post(std::function<void()> task);
  // From here on it may run on the owner's CPU as well: to be said before the owner waits for it,
  // as the others may be busy with something else. hand_over() does so.
  void share_cpu();
  // The thread is the caller's, and when the tasks given before are done it is called `name` and
  // runs `body`. As start_thread(), without making one. The last that is given.
  Result<std::thread> hand_over(std::string name, std::function<void()> body);

 private:
  struct Tasks;
  std::shared_ptr<Tasks> tasks_;
  std::thread thread_;
};

}  // namespace base
