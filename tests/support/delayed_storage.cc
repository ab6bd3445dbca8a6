#include "tests/support/delayed_storage.h"

#include <poll.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "tests/support/forwarding_storage.h"

namespace test {
namespace {

using base::Result;
using snapshot::File;
using snapshot::IoQueue;
using snapshot::Storage;
using Clock = std::chrono::steady_clock;

// Announces, from a thread of its own, the times at which something held back is due, and what the
// queue beneath announces.
class Alarm {
 public:
  static Result<std::unique_ptr<Alarm>> create(base::EventFd& beneath) {
    TRY_ASSIGN(auto event, base::EventFd::create());
    TRY_ASSIGN(auto wake, base::EventFd::create());
    return std::unique_ptr<Alarm>(new Alarm(std::move(event), std::move(wake), beneath));
  }
  ~Alarm() {
    end_ = true;
    wake_.signal();
    thread_.join();
  }

  void set(Clock::time_point due) {
    {
      std::lock_guard lock(mutex_);
      due_.push_back(due);
    }
    wake_.signal();
  }
  base::EventFd& event() { return event_; }

 private:
  Alarm(base::EventFd event, base::EventFd wake, base::EventFd& beneath)
      : event_(std::move(event)), wake_(std::move(wake)), beneath_(beneath) {
    thread_ = std::thread([this] { run(); });
  }

  int milliseconds_to_wait() {
    std::lock_guard lock(mutex_);
    auto now = Clock::now();
    if (std::erase_if(due_, [&](auto due) { return due <= now; }) > 0) event_.signal();
    if (due_.empty()) return -1;
    auto left = std::chrono::ceil<std::chrono::milliseconds>(*std::ranges::min_element(due_) - now);
    return static_cast<int>(left.count());
  }

  void run() {
    while (!end_) {
      pollfd wait[] = {{wake_.fd(), POLLIN, 0}, {beneath_.fd(), POLLIN, 0}};
      (void)::poll(wait, 2, milliseconds_to_wait());
      (void)wake_.consume();
      if (beneath_.consume()) event_.signal();
    }
  }

  base::EventFd event_, wake_;
  base::EventFd& beneath_;
  std::mutex mutex_;
  std::vector<Clock::time_point> due_;
  std::atomic<bool> end_ = false;
  std::thread thread_;
};

class DelayedQueue : public IoQueue {
 public:
  DelayedQueue(std::unique_ptr<IoQueue> beneath, std::unique_ptr<Alarm> alarm, Delays delays)
      : beneath_(std::move(beneath)),
        alarm_(std::move(alarm)),
        longest_(delays.longest),
        random_(delays.seed) {}
  ~DelayedQueue() override {
    while (wait_completion() != nullptr) {
    }
    alarm_.reset();
  }

  Result<void> readv(Operation& operation, File& file, std::span<const iovec> vectors,
                     uint64_t offset) override {
    return beneath_->readv(operation, file, vectors, offset);
  }
  Result<void> writev(Operation& operation, File& file, std::span<const iovec> vectors,
                      uint64_t offset) override {
    return hold(operation, [this, &operation, &file, vectors, offset] {
      return beneath_->writev(operation, file, vectors, offset);
    });
  }
  Result<void> sync(Operation& operation, File& file) override {
    return hold(operation, [this, &operation, &file] { return beneath_->sync(operation, file); });
  }
  Result<void> allocate(Operation& operation, File& file, uint64_t offset,
                        uint64_t length) override {
    return beneath_->allocate(operation, file, offset, length);
  }
  Result<void> punch(Operation& operation, File& file, uint64_t offset, uint64_t length) override {
    return hold(operation, [this, &operation, &file, offset, length] {
      return beneath_->punch(operation, file, offset, length);
    });
  }
  Result<void> submit() override {
    for (Held& held : prepared_) {
      alarm_->set(held.due);
      held_.push_back(std::move(held));
    }
    prepared_.clear();
    return beneath_->submit();
  }
  Operation* next_completion() override {
    release();
    if (!refused_.empty()) return take_refused();
    return beneath_->next_completion();
  }
  Operation* wait_completion() override {
    (void)submit();
    while (true) {
      if (auto* operation = next_completion()) return operation;
      if (held_.empty()) return beneath_->wait_completion();
      auto due = std::ranges::min(held_, {}, &Held::due).due;
      std::this_thread::sleep_until(std::min(due, Clock::now() + std::chrono::microseconds(100)));
    }
  }
  base::EventFd& event() override { return alarm_->event(); }
  unsigned in_flight() const override {
    return static_cast<unsigned>(prepared_.size() + held_.size() + refused_.size()) +
           beneath_->in_flight();
  }

 private:
  struct Held {
    Operation* operation;
    Clock::time_point due;
    std::function<Result<void>()> hand_over;
  };

  Result<void> hold(Operation& operation, std::function<Result<void>()> hand_over) {
    operation.pending = true;
    std::uniform_int_distribution<int64_t> delay(0, longest_.count());
    auto due = Clock::now() + std::chrono::microseconds(delay(random_));
    prepared_.push_back({&operation, due, std::move(hand_over)});
    return {};
  }

  void release() {
    auto now = Clock::now();
    bool any = false;
    for (Held& held : held_) {
      if (held.due > now) continue;
      any = true;
      held.operation->pending = false;
      if (auto done = held.hand_over(); !done) {
        held.operation->result = -done.error().os_error();
        refused_.push_back(held.operation);
      }
    }
    std::erase_if(held_, [&](const Held& held) { return held.due <= now; });
    if (any) (void)beneath_->submit();
  }
  Operation* take_refused() {
    Operation* operation = refused_.back();
    refused_.pop_back();
    return operation;
  }

  std::unique_ptr<IoQueue> beneath_;
  std::unique_ptr<Alarm> alarm_;
  const std::chrono::microseconds longest_;
  std::mt19937_64 random_;
  std::vector<Held> prepared_, held_;
  std::vector<Operation*> refused_;  // by the queue beneath
};

class DelayedStorage : public ForwardingStorage {
 public:
  DelayedStorage(std::unique_ptr<Storage> beneath, Delays delays)
      : ForwardingStorage(std::move(beneath)), delays_(delays) {}
  Result<std::unique_ptr<IoQueue>> make_queue(unsigned entries) override {
    TRY_ASSIGN(auto queue, ForwardingStorage::make_queue(entries));
    TRY_ASSIGN(auto alarm, Alarm::create(queue->event()));
    Delays delays = delays_;
    delays.seed += queues_++;
    return std::make_unique<DelayedQueue>(std::move(queue), std::move(alarm), delays);
  }

 private:
  const Delays delays_;
  std::atomic<uint64_t> queues_ = 0;
};

}  // namespace

std::unique_ptr<Storage> delay_writes(std::unique_ptr<Storage> beneath, Delays delays) {
  return std::make_unique<DelayedStorage>(std::move(beneath), delays);
}

}  // namespace test
