#include "vmm/base/event_loop.h"

#include <gtest/gtest.h>
#include <sys/epoll.h>

#include <future>

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

TEST(EventLoop, RefusesADescriptorItCannotWaitOn) {
  auto loop = *EventLoop::create("test");
  EXPECT_FALSE(loop->watch(-1, EPOLLIN, [](uint32_t) {}));
}

}  // namespace
}  // namespace base
