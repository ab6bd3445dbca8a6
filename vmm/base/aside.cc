#include "vmm/base/aside.h"

#include <pthread.h>

#include <condition_variable>
#include <deque>
#include <mutex>
#include <utility>

#include "vmm/base/thread.h"

namespace base {

// The thread's as well, which may outlive its owner's object.
struct Aside::Tasks {
  void add(std::function<void()> task, bool last) {
    {
      std::lock_guard lock(mutex);
      if (task) waiting.push_back(std::move(task));
      ending = last;
    }
    changed.notify_one();
  }
  void work() {
    std::unique_lock lock(mutex);
    for (;;) {
      changed.wait(lock, [this] { return ending || !waiting.empty(); });
      if (waiting.empty()) return;
      std::function<void()> task = std::move(waiting.front());
      waiting.pop_front();
      lock.unlock();
      task();
      task = nullptr;  // and what it holds
      lock.lock();
    }
  }

  std::mutex mutex;  // guards what follows
  std::condition_variable changed;
  std::deque<std::function<void()>> waiting;
  bool ending = false;
};

Aside::Aside(std::string name) : tasks_(std::make_shared<Tasks>()) {
  auto made = start_thread(std::move(name), [tasks = tasks_] { tasks->work(); });
  if (!made) return;
  thread_ = std::move(*made);
  run_elsewhere(thread_);
}

Aside::~Aside() {
  if (!thread_.joinable()) return;
  share_cpu();  // while the thread is there: of one that has ended it would be the caller's mask
  tasks_->add(nullptr, true);
  thread_.join();
}

void Aside::post(std::function<void()> task) {
  if (!thread_.joinable()) return task();
  tasks_->add(std::move(task), false);
}

void Aside::share_cpu() {
  if (thread_.joinable()) run_anywhere(thread_.native_handle());
}

Result<std::thread> Aside::hand_over(std::string name, std::function<void()> body) {
  if (!thread_.joinable()) return start_thread(std::move(name), std::move(body));
  auto go_on = [name = name.substr(0, 15), body = std::move(body)] {
    pthread_setname_np(pthread_self(), name.c_str());
    body();
  };
  share_cpu();
  tasks_->add(go_on, true);
  return std::move(thread_);
}

}  // namespace base
