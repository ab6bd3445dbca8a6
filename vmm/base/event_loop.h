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
  // Without its thread: until begin() descriptors can be watched, and no handler runs.
  static Result<std::unique_ptr<EventLoop>> create_idle(std::string name);
  Result<void> begin();
  ~EventLoop();

  // Ends and joins the thread, after the tasks posted so far: no handler runs any more. Not from
  // the loop's own thread.
  void stop();

  Result<void> watch(int fd, uint32_t events, Handler handler);
  Result<void> change(int fd, uint32_t events);
  void unwatch(int fd);

  // Between hold() and release(), which the same thread calls (not the loop's own), no handler and
  // no task runs: hold() waits for the one at hand, and no more come. Descriptors stay as they are
  // and are looked at afterwards. A loop that waits is not woken.
  void hold();
  void release();

  // After begin(): runs `task` on the loop's thread, after the handlers of this turn. Once the loop
  // has stopped nothing runs any more.
  void post(std::function<void()> task);
  // The same, and waits until it has run. On the loop's own thread, and on the caller's once the
  // loop has stopped, it runs at once.
  void run(std::function<void()> task);

 private:
  // A descriptor's number is used again once it is closed; what epoll reports carries the number
  // of the watch too, so that an event of the old one is not taken for one of the new.
  struct Watch {
    uint32_t id;
    Handler handler;
  };

  explicit EventLoop(std::string name) : name_(std::move(name)) {}
  static uint64_t event_data(int fd, uint32_t id);
  // False where the loop has stopped.
  bool try_post(std::function<void()>& task);
  // Runs a handler or task, not while the loop is held.
  template <typename Call>
  void call(Call&& what);
  void turn();
  void run_tasks();
  void loop();

  std::string name_;
  Fd epoll_;
  std::unique_ptr<EventFd> wake_;
  std::mutex mutex_;  // guards the next four; never held while a handler or its destructor runs
  std::unordered_map<int, std::shared_ptr<Watch>> watches_;
  uint32_t next_id_ = 0;
  std::vector<std::function<void()>> tasks_;
  bool stopped_ = false;  // the thread takes no task any more
  std::atomic<bool> stopping_ = false;
  std::mutex gate_;                  // locked while a handler or task runs, or the loop is held
  std::atomic<unsigned> holds_ = 0;  // who wants to hold it goes before the next handler
  std::thread thread_;
  std::atomic<std::thread::id> thread_id_;  // thread_'s own is not to be read while it changes
};

}  // namespace base
