#include "vmm/base/event_loop.h"

#include <sys/epoll.h>

#include <array>
#include <future>

#include "vmm/base/thread.h"

namespace base {

Result<std::unique_ptr<EventLoop>> EventLoop::create(std::string name) {
  TRY_ASSIGN(auto loop, create_idle(std::move(name)));
  TRY(loop->begin());
  return loop;
}

Result<std::unique_ptr<EventLoop>> EventLoop::create_idle(std::string name) {
  std::unique_ptr<EventLoop> loop(new EventLoop(std::move(name)));
  loop->epoll_ = Fd(::epoll_create1(EPOLL_CLOEXEC));
  if (!loop->epoll_) return fail_errno("epoll_create1");
  TRY_ASSIGN(EventFd wake, EventFd::create());
  loop->wake_ = std::make_unique<EventFd>(std::move(wake));
  TRY(loop->watch(loop->wake_->fd(), EPOLLIN,
                  [event = loop->wake_.get()](uint32_t) { event->consume(); }));
  return loop;
}

Result<void> EventLoop::begin() {
  TRY_ASSIGN(thread_, start_thread(name_, [this] { loop(); }));
  return {};
}

EventLoop::~EventLoop() { stop(); }

void EventLoop::stop() {
  stopping_ = true;
  if (wake_) wake_->signal();
  if (thread_.joinable()) return thread_.join();
  while (!stopped_) run_tasks();  // of one that never began
}

uint64_t EventLoop::event_data(int fd, uint32_t id) {
  return uint64_t{id} << 32 | static_cast<uint32_t>(fd);
}

Result<void> EventLoop::watch(int fd, uint32_t events, Handler handler) {
  auto watch = std::make_shared<Watch>(Watch{0, std::move(handler)});
  std::lock_guard lock(mutex_);
  watch->id = next_id_++;
  epoll_event event{};
  event.events = events;
  event.data.u64 = event_data(fd, watch->id);
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) < 0) {
    return fail_errno("watch descriptor " + std::to_string(fd));
  }
  watches_[fd].swap(watch);
  return {};
}

Result<void> EventLoop::change(int fd, uint32_t events) {
  std::lock_guard lock(mutex_);
  auto found = watches_.find(fd);
  if (found == watches_.end()) {
    return fail("descriptor " + std::to_string(fd) + " is not watched");
  }
  epoll_event event{};
  event.events = events;
  event.data.u64 = event_data(fd, found->second->id);
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, fd, &event) < 0) {
    return fail_errno("change watch of descriptor " + std::to_string(fd));
  }
  return {};
}

void EventLoop::unwatch(int fd) {
  std::shared_ptr<Watch> ended;  // destroyed after the lock is released
  std::lock_guard lock(mutex_);
  auto found = watches_.find(fd);
  if (found == watches_.end()) return;
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
  ended = std::move(found->second);
  watches_.erase(found);
}

bool EventLoop::try_post(std::function<void()>& task) {
  {
    std::lock_guard lock(mutex_);
    if (stopped_) return false;
    tasks_.push_back(std::move(task));
  }
  wake_->signal();
  return true;
}

void EventLoop::post(std::function<void()> task) { try_post(task); }

void EventLoop::run(std::function<void()> task) {
  if (std::this_thread::get_id() == thread_id_) return task();
  std::promise<void> done;
  std::function<void()> wrapped = [&] {
    task();
    done.set_value();
  };
  if (!try_post(wrapped)) return task();
  done.get_future().wait();
}

void EventLoop::hold() {
  ++holds_;
  gate_.lock();
}

void EventLoop::release() {
  gate_.unlock();
  --holds_;
  holds_.notify_all();
}

template <typename Call>
void EventLoop::call(Call&& what) {
  // A busy loop would take the lock back before whoever waits for it wakes up: it stands aside.
  for (unsigned holds; (holds = holds_) != 0;) holds_.wait(holds);
  std::lock_guard gate(gate_);
  what();
}

void EventLoop::turn() {
  std::array<epoll_event, 32> events;
  int count = ::epoll_wait(epoll_.get(), events.data(), events.size(), -1);
  for (int i = 0; i < count; ++i) {
    std::shared_ptr<Watch> watch;
    {
      std::lock_guard lock(mutex_);
      // A handler called earlier in this turn may have taken this descriptor away, or put another
      // in its place.
      auto found = watches_.find(static_cast<int>(static_cast<uint32_t>(events[i].data.u64)));
      if (found == watches_.end() || found->second->id != events[i].data.u64 >> 32) continue;
      watch = found->second;
    }
    call([&] { watch->handler(events[i].events); });
  }
}

void EventLoop::run_tasks() {
  std::vector<std::function<void()>> tasks;
  {
    std::lock_guard lock(mutex_);
    tasks.swap(tasks_);
    // Who waits for a task is not left waiting: this is the last look.
    if (stopping_ && tasks.empty()) stopped_ = true;
  }
  for (auto& task : tasks) call(task);
}

void EventLoop::loop() {
  thread_id_ = std::this_thread::get_id();
  while (!stopped_) {
    if (!stopping_) turn();
    run_tasks();
  }
}

}  // namespace base
