// A thread that waits on descriptors and calls their handlers, one at a time. Devices live on one;
// each disk has its own, so that a slow one holds up nobody else.
//
// All functions may be called from any thread. After unwatch() returns no new call of the handler
// begins, but one may be running on the loop's thread: a handler and whoever unwatches share a lock
// of their own.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "vmm/base/fd.h"
#include "vmm/base/result.h"

namespace base {

class EventLoop {
 public:
  using Handler = std::function<void(uint32_t events)>;  // events: EPOLLIN, EPOLLOUT, …

  // `name` is the thread's, as `ps -L` and gdb show it: 15 characters at most.
  static Result<std::unique_ptr<EventLoop>> create(std::string name);
  ~EventLoop();

  // Ends and joins the thread: no handler runs any more. Not from the loop's own thread.
  void stop();

  Result<void> watch(int fd, uint32_t events, Handler handler);
  Result<void> change(int fd, uint32_t events);
  void unwatch(int fd);

  // Runs `task` on the loop's thread, after the handlers of this turn.
  void post(std::function<void()> task);
  // The same, and waits until it has run. On the loop's own thread it runs at once.
  void run(std::function<void()> task);

 private:
  explicit EventLoop(std::string name) : name_(std::move(name)) {}
  void turn();
  void loop();

  std::string name_;
  Fd epoll_;
  std::unique_ptr<EventFd> wake_;
  std::mutex mutex_;  // guards handlers_ and tasks_; never held while a handler runs
  std::unordered_map<int, std::shared_ptr<Handler>> handlers_;
  std::vector<std::function<void()>> tasks_;
  std::atomic<bool> stopping_ = false;
  std::thread thread_;
};

}  // namespace base
