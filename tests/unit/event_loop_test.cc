#include "vmm/base/event_loop.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <future>
#include <thread>

namespace base {
namespace {

TEST(EventLoop, CallsTheHandlerOfASignalledDescriptor) {
  auto loop = *EventLoop::create("test");
  auto event = *EventFd::create();
  std::promise<uint32_t> seen;
  ASSERT_TRUE(loop->watch(event.fd(), EPOLLIN, [&](uint32_t events) {
    event.consume();
    seen.set_value(events);
  }));
  event.signal();
  EXPECT_EQ(seen.get_future().get(), static_cast<uint32_t>(EPOLLIN));
}

TEST(EventLoop, DoesNotCallAHandlerThatWasTakenAway) {
  auto loop = *EventLoop::create("test");
  auto event = *EventFd::create();
  int calls = 0;
  ASSERT_TRUE(loop->watch(event.fd(), EPOLLIN, [&](uint32_t) { ++calls; }));
  loop->unwatch(event.fd());
  event.signal();
  for (int i = 0; i < 3; ++i) loop->run([] {});
  EXPECT_EQ(calls, 0);
}

TEST(EventLoop, RunWaitsAndWorksFromTheLoopItself) {
  auto loop = *EventLoop::create("test");
  int value = 0;
  loop->run([&] {
    value = 1;
    loop->run([&] { value = 2; });
  });
  EXPECT_EQ(value, 2);
}

TEST(EventLoop, NothingRunsWhileItIsHeldAndNothingIsLost) {
  auto loop = *EventLoop::create("test");
  auto event = *EventFd::create();
  std::atomic<int> calls = 0, tasks = 0;
  ASSERT_TRUE(loop->watch(event.fd(), EPOLLIN, [&](uint32_t) {
    event.consume();
    ++calls;
  }));
  loop->hold();
  event.signal();
  loop->post([&] { ++tasks; });
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_EQ(calls, 0);
  EXPECT_EQ(tasks, 0);
  loop->release();
  for (int i = 0; i < 3; ++i) loop->run([] {});
  EXPECT_EQ(calls, 1);
  EXPECT_EQ(tasks, 1);
}

// A handler whose descriptor stays readable is called again at once: the loop never waits.
TEST(EventLoop, HoldGetsThroughToABusyLoopAndWaitsForItsHandler) {
  auto loop = *EventLoop::create("test");
  auto event = *EventFd::create();
  std::atomic<bool> inside = false;
  std::atomic<uint64_t> calls = 0;
  ASSERT_TRUE(loop->watch(event.fd(), EPOLLIN, [&](uint32_t) {
    inside = true;
    ++calls;
    std::this_thread::yield();
    inside = false;
  }));
  event.signal();
  for (int i = 0; i < 200; ++i) {
    loop->hold();
    ASSERT_FALSE(inside);
    uint64_t before = calls;
    std::this_thread::yield();
    ASSERT_EQ(calls, before);
    loop->release();
  }
  for (int i = 0; i < 3; ++i) loop->run([] {});
  loop->unwatch(event.fd());
  loop->stop();  // one call may be running
  EXPECT_GT(calls, 0u);
}

TEST(EventLoop, RunsWhatWasPostedBeforeItStops) {
  auto loop = *EventLoop::create("test");
  std::promise<void> go;
  int ran = 0;
  loop->post([&] { go.get_future().wait(); });
  for (int i = 0; i < 3; ++i) loop->post([&] { ++ran; });
  loop->post([&] { loop->post([&] { ++ran; }); });
  go.set_value();
  loop->stop();
  EXPECT_EQ(ran, 4);
}

TEST(EventLoop, AfterStopRunWorksOnTheCallersThreadAndPostDoesNothing) {
  auto loop = *EventLoop::create("test");
  loop->stop();
  std::thread::id where;
  loop->run([&] { where = std::this_thread::get_id(); });
  EXPECT_EQ(where, std::this_thread::get_id());
  bool ran = false;
  loop->post([&] { ran = true; });
  EXPECT_FALSE(ran);
}

TEST(EventLoop, RunIsNotLeftWaitingByAStopAtTheSameTime) {
  for (int i = 0; i < 200; ++i) {
    auto loop = *EventLoop::create("test");
    std::atomic<int> ran = 0;
    std::thread caller([&] { loop->run([&] { ++ran; }); });
    loop->stop();
    caller.join();
    EXPECT_EQ(ran, 1);
  }
}

TEST(EventLoop, WhatIsReadyBeforeItBeginsIsHandledThen) {
  auto loop = *EventLoop::create_idle("test");
  auto event = *EventFd::create();
  std::atomic<int> calls = 0;
  ASSERT_TRUE(loop->watch(event.fd(), EPOLLIN, [&](uint32_t) { calls += event.consume(); }));
  event.signal();
  loop->hold();
  loop->release();
  EXPECT_EQ(calls, 0);
  ASSERT_TRUE(loop->begin());
  while (calls == 0) std::this_thread::yield();
  loop->stop();
  EXPECT_EQ(calls, 1);
}

TEST(EventLoop, OneThatNeverBeganCanGo) {
  auto loop = *EventLoop::create_idle("test");
  auto event = *EventFd::create();
  bool called = false;
  ASSERT_TRUE(loop->watch(event.fd(), EPOLLIN, [&](uint32_t) { called = true; }));
  event.signal();
  int ran = 0;
  loop->post([&] { ++ran; });
  loop->stop();
  EXPECT_FALSE(called);
  loop->run([&] { ++ran; });
  EXPECT_EQ(ran, 2);
}

// Both descriptors are ready in one turn; whichever handler comes first puts a new descriptor,
// which is not ready, under the other's number.
TEST(EventLoop, AnEventOfADescriptorThatWasClosedIsNotGivenToItsSuccessor) {
  auto loop = *EventLoop::create("test");
  int fds[2] = {::eventfd(1, EFD_CLOEXEC), ::eventfd(1, EFD_CLOEXEC)};
  int calls = 0, successor_calls = 0;
  auto handler = [&](int mine, int other) {
    return [&, mine, other](uint32_t) {
      ++calls;
      loop->unwatch(mine);
      loop->unwatch(other);
      Fd fresh(::eventfd(0, EFD_CLOEXEC));
      ASSERT_EQ(::dup3(fresh.get(), other, O_CLOEXEC), other);
      ASSERT_TRUE(loop->watch(other, EPOLLIN, [&](uint32_t) { ++successor_calls; }));
    };
  };
  loop->run([&] {
    ASSERT_TRUE(loop->watch(fds[0], EPOLLIN, handler(fds[0], fds[1])));
    ASSERT_TRUE(loop->watch(fds[1], EPOLLIN, handler(fds[1], fds[0])));
  });
  for (int i = 0; i < 3; ++i) loop->run([] {});
  loop->stop();
  EXPECT_EQ(calls, 1);
  EXPECT_EQ(successor_calls, 0);
  for (int fd : fds) ::close(fd);
}

TEST(EventLoop, AHandlersDestructorMayUseTheLoop) {
  auto loop = *EventLoop::create("test");
  auto event = *EventFd::create();
  auto other = *EventFd::create();
  ASSERT_TRUE(loop->watch(other.fd(), EPOLLIN, [](uint32_t) {}));
  auto guard = std::shared_ptr<void>(nullptr, [&](void*) { loop->unwatch(other.fd()); });
  ASSERT_TRUE(loop->watch(event.fd(), EPOLLIN, [held = std::move(guard)](uint32_t) {}));
  loop->unwatch(event.fd());
  EXPECT_TRUE(loop->watch(other.fd(), EPOLLIN, [](uint32_t) {}));  // it was let go of
}

TEST(EventLoop, ChangeOfADescriptorThatIsNotWatchedFails) {
  auto loop = *EventLoop::create("test");
  auto event = *EventFd::create();
  EXPECT_FALSE(loop->change(event.fd(), EPOLLIN));
}

TEST(EventLoop, RefusesADescriptorItCannotWaitOn) {
  auto loop = *EventLoop::create("test");
  EXPECT_FALSE(loop->watch(-1, EPOLLIN, [](uint32_t) {}));
}

}  // namespace
}  // namespace base
