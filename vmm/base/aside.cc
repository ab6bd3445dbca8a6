#include "vmm/base/aside.h"

#include <pthread.h>

#include <condition_variable>
#include <deque>
#include <mutex>
#include <utility>

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
  apart_.emplace(thread_);
}

Aside::~Aside() {
  if (!thread_.joinable()) return;
  share_cpus();
  tasks_->add(nullptr, true);
  thread_.join();
}

void Aside::post(std::function<void()> task) {
  if (!thread_.joinable()) return task();
  tasks_->add(std::move(task), false);
}

void Aside::share_cpus() {
  if (apart_) apart_->end();
}

Result<std::thread> Aside::hand_over(std::string name, std::function<void()> body) {
  if (!thread_.joinable()) return start_thread(std::move(name), std::move(body));
  auto go_on = [name = name.substr(0, 15), body = std::move(body)] {
    pthread_setname_np(pthread_self(), name.c_str());
    body();
  };
  share_cpus();
  tasks_->add(go_on, true);
  return std::move(thread_);
}

}  // namespace base
