// A thread that does what takes long while its owner goes on with something else.
#pragma once

#include <chrono>
#include <functional>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>

#include "vmm/base/result.h"

namespace base {

// One task after the other, in the order in which they were given, at first on another CPU than the
// owner's where there is one. Owned and used by one thread. Where there is no thread, or none can
// be made, tasks are done by who gives them.
class Aside {
 public:
  // Without a thread.
  Aside() = default;
  // `name` as for start_thread().
  explicit Aside(std::string name);
  // Returns when everything that was given is done.
  ~Aside();
  Aside(const Aside&) = delete;
  Aside& operator=(const Aside&) = delete;

  void post(std::function<void()> task);
  // As post(); what `task` returns can be waited for. It must not throw.
  template <typename Task>
  std::future<std::invoke_result_t<Task>> ask(Task task) {
    auto promise = std::make_shared<std::promise<std::invoke_result_t<Task>>>();
    auto answer = promise->get_future();
    post([promise, task = std::move(task)] { promise->set_value(task()); });
    return answer;
  }
  // Waits for an answer. The thread may run on the owner's CPU as well where it takes longer than a
  // moment, as the others may be busy with something else.
  template <typename T>
  T get(std::future<T>& answer) {
    if (answer.wait_for(kMoment) == std::future_status::timeout) share_cpu();
    return answer.get();
  }
  // The thread is the caller's, and when the tasks given before are done it is called `name` and
  // runs `body`. As start_thread(), without making one. The last that is given.
  Result<std::thread> hand_over(std::string name, std::function<void()> body);

 private:
  static constexpr std::chrono::milliseconds kMoment{1};
  struct Tasks;
  void share_cpu();
  std::shared_ptr<Tasks> tasks_;
  std::thread thread_;
};

}  // namespace base
