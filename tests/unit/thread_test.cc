#include "vmm/base/thread.h"

#include <gtest/gtest.h>
#include <pthread.h>
#include <sched.h>

#include <atomic>

namespace base {
namespace {

TEST(Thread, RunsElsewhereUntilThatIsTakenBack) {
  cpu_set_t all, its;
  ASSERT_EQ(sched_getaffinity(0, sizeof all, &all), 0);
  if (CPU_COUNT(&all) < 2) GTEST_SKIP() << "one CPU only";
  std::atomic<bool> end = false;
  std::thread thread = *start_thread("waits", [&] { end.wait(false); });
  run_elsewhere(thread);
  EXPECT_EQ(pthread_getaffinity_np(thread.native_handle(), sizeof its, &its), 0);
  EXPECT_EQ(CPU_COUNT(&its), CPU_COUNT(&all) - 1);
  run_anywhere(thread.native_handle());
  EXPECT_EQ(pthread_getaffinity_np(thread.native_handle(), sizeof its, &its), 0);
  EXPECT_TRUE(CPU_EQUAL(&its, &all));
  end = true;
  end.notify_one();
  thread.join();
}

}  // namespace
}  // namespace base
