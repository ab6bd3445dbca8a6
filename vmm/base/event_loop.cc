#include "vmm/base/event_loop.h"

#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>

#include <array>
#include <future>

namespace base {

Result<std::unique_ptr<EventLoop>> EventLoop::create(std::string name) {
  std::unique_ptr<EventLoop> loop(new EventLoop(std::move(name)));
  loop->epoll_ = Fd(::epoll_create1(EPOLL_CLOEXEC));
  if (!loop->epoll_) return fail_errno("epoll_create1");
  TRY_ASSIGN(EventFd wake, EventFd::create());
  loop->wake_ = std::make_unique<EventFd>(std::move(wake));
  TRY(loop->watch(loop->wake_->fd(), EPOLLIN,
                  [event = loop->wake_.get()](uint32_t) { event->consume(); }));
  // Signals are for the main thread.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  loop->thread_ = std::thread([raw = loop.get()] { raw->loop(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  pthread_setname_np(loop->thread_.native_handle(), loop->name_.substr(0, 15).c_str());
  return loop;
}

EventLoop::~EventLoop() { stop(); }

void EventLoop::stop() {
  stopping_ = true;
  if (wake_) wake_->signal();
  if (thread_.joinable()) thread_.join();
}

Result<void> EventLoop::watch(int fd, uint32_t events, Handler handler) {
  std::lock_guard lock(mutex_);
  epoll_event event{};
  event.events = events;
  event.data.fd = fd;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) < 0) {
    return fail_errno("watch descriptor " + std::to_string(fd));
  }
  handlers_[fd] = std::make_shared<Handler>(std::move(handler));
  return {};
}

Result<void> EventLoop::change(int fd, uint32_t events) {
  epoll_event event{};
  event.events = events;
  event.data.fd = fd;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, fd, &event) < 0) {
    return fail_errno("change watch of descriptor " + std::to_string(fd));
  }
  return {};
}

void EventLoop::unwatch(int fd) {
  std::lock_guard lock(mutex_);
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
  handlers_.erase(fd);
}

void EventLoop::post(std::function<void()> task) {
  {
    std::lock_guard lock(mutex_);
    tasks_.push_back(std::move(task));
  }
  wake_->signal();
}

void EventLoop::run(std::function<void()> task) {
  if (std::this_thread::get_id() == thread_.get_id()) return task();
  std::promise<void> done;
  post([&] {
    task();
    done.set_value();
  });
  done.get_future().wait();
}

void EventLoop::turn() {
  std::array<epoll_event, 32> events;
  int count = ::epoll_wait(epoll_.get(), events.data(), events.size(), -1);
  for (int i = 0; i < count; ++i) {
    std::shared_ptr<Handler> handler;
    {
      std::lock_guard lock(mutex_);
      // A handler called earlier in this turn may have taken this descriptor away.
      auto found = handlers_.find(events[i].data.fd);
      if (found == handlers_.end()) continue;
      handler = found->second;
    }
    (*handler)(events[i].events);
  }
}

void EventLoop::loop() {
  while (!stopping_) {
    turn();
    std::vector<std::function<void()>> tasks;
    {
      std::lock_guard lock(mutex_);
      tasks.swap(tasks_);
    }
    for (auto& task : tasks) task();
  }
}

}  // namespace base
