#include "vmm/base/thread.h"

#include <gtest/gtest.h>
#include <pthread.h>
#include <sched.h>

#include <atomic>

namespace base {
namespace {

cpu_set_t cpus_of(pthread_t thread) {
  cpu_set_t cpus;
  CPU_ZERO(&cpus);
  EXPECT_EQ(pthread_getaffinity_np(thread, sizeof cpus, &cpus), 0);
  return cpus;
}

TEST(CpusApart, TwoThreadsHaveNoCpuInCommonUntilTheEnd) {
  const cpu_set_t all = cpus_of(pthread_self());
  if (CPU_COUNT(&all) < 2) GTEST_SKIP() << "one CPU only";
  std::atomic<bool> end = false;
  std::thread thread = *start_thread("waits", [&] { end.wait(false); });
  CpusApart apart(thread);
  cpu_set_t own = cpus_of(pthread_self()), its = cpus_of(thread.native_handle()), both, either;
  CPU_AND(&both, &own, &its);
  CPU_OR(&either, &own, &its);
  EXPECT_EQ(CPU_COUNT(&own), 1);
  EXPECT_EQ(CPU_COUNT(&both), 0);
  EXPECT_TRUE(CPU_EQUAL(&either, &all));
  apart.end();
  own = cpus_of(pthread_self());
  its = cpus_of(thread.native_handle());
  EXPECT_TRUE(CPU_EQUAL(&own, &all));
  EXPECT_TRUE(CPU_EQUAL(&its, &all));
  end = true;
  end.notify_one();
  thread.join();
}

TEST(CpusApart, WithOneCpuThatIsBoths) {
  std::thread([] {
    const cpu_set_t all = cpus_of(pthread_self());
    cpu_set_t one;
    CPU_ZERO(&one);
    for (size_t cpu = 0; CPU_COUNT(&one) == 0; ++cpu) {
      if (CPU_ISSET(cpu, &all)) CPU_SET(cpu, &one);
    }
    ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
    std::atomic<bool> end = false;
    std::thread thread = *start_thread("waits", [&] { end.wait(false); });
    CpusApart apart(thread);
    const cpu_set_t own = cpus_of(pthread_self()), its = cpus_of(thread.native_handle());
    EXPECT_TRUE(CPU_EQUAL(&own, &one));
    EXPECT_TRUE(CPU_EQUAL(&its, &one));
    end = true;
    end.notify_one();
    thread.join();
  }).join();
}

}  // namespace
}  // namespace base
