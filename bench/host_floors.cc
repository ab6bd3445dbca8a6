// What the host itself takes for the things that a restore and a stall are made of, none of them
// KVM's: why a target may be out of reach here. Prints JSON; bench/floors.py says what it explains.
//
//   host_floors
#include <cpuid.h>
#include <pthread.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <thread>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

double us_since(Clock::time_point start) {
  return std::chrono::duration<double, std::micro>(Clock::now() - start).count();
}

// The value that `part` of them, from 0 to 1, do not exceed.
double percentile(std::vector<double> values, double part) {
  std::ranges::sort(values);
  return values[static_cast<size_t>(part * static_cast<double>(values.size() - 1))];
}

double median_of(int runs, const std::function<double()>& measure) {
  std::vector<double> values(static_cast<size_t>(runs));
  for (double& value : values) value = measure();
  return percentile(values, 0.5);
}

char* map(size_t bytes) {
  void* at = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at != MAP_FAILED) return static_cast<char*>(at);
  std::perror("host_floors: mmap");
  std::exit(1);
}

// The first touch of a page, in microseconds.
double page_fault() {
  constexpr size_t kPages = 2048, kPage = 4096;
  char* memory = map(kPages * kPage);
  ::madvise(memory, kPages * kPage, MADV_NOHUGEPAGE);
  auto start = Clock::now();
  for (size_t i = 0; i < kPages; ++i) memory[i * kPage] = 1;
  double us = us_since(start) / kPages;
  ::munmap(memory, kPages * kPage);
  return us;
}

// MB/s at which the host gives memory, in huge pages where it has them.
double populate() {
  constexpr size_t kBytes = 512 << 20;
  char* memory = map(kBytes);
  ::madvise(memory, kBytes, MADV_HUGEPAGE);
  auto start = Clock::now();
  for (size_t i = 0; i < kBytes; i += 4096) memory[i] = 1;
  double us = us_since(start);
  ::munmap(memory, kBytes);
  return kBytes / us;
}

double cpuid() {
  constexpr int kCalls = 64;
  unsigned a = 0, b = 0, c = 0, d = 0;
  auto start = Clock::now();
  for (int i = 0; i < kCalls; ++i) __cpuid(0, a, b, c, d);
  return us_since(start) / kCalls;
}

// Until a thread that was just made has begun, and its maker has heard of it.
double thread_start() {
  auto start = Clock::now();
  std::thread thread([] {});
  thread.join();
  return us_since(start);
}

// From a write to an eventfd until a thread that has waited for it goes on, both asleep until then.
std::vector<double> wakes(int count) {
  int event = ::eventfd(0, EFD_CLOEXEC);
  std::atomic<Clock::time_point> woken{};
  std::thread waiter([&] {
    uint64_t value = 0;
    for (int i = 0; i < count && ::read(event, &value, sizeof value) > 0; ++i) woken = Clock::now();
  });
  std::vector<double> values;
  for (int i = 0; i < count; ++i) {
    woken = Clock::time_point{};
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    uint64_t one = 1;
    auto start = Clock::now();
    if (::write(event, &one, sizeof one) < 0) std::exit(1);
    while (woken.load() == Clock::time_point{}) std::this_thread::yield();
    values.push_back(std::chrono::duration<double, std::micro>(woken.load() - start).count());
  }
  waiter.join();
  ::close(event);
  return values;
}

void stay_on(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  ::pthread_setaffinity_np(::pthread_self(), sizeof set, &set);
}

// Every processor has a loop that does nothing but read the clock: the longest gap that one of them
// sees in each window, in microseconds.
std::vector<double> gaps(int windows, std::chrono::milliseconds length) {
  std::vector<double> longest(static_cast<size_t>(windows));
  std::atomic<bool> done = false;
  auto look = [&](std::chrono::nanoseconds span) {
    auto last = Clock::now(), end = last + span;
    double most = 0;
    while (last < end && !done.load(std::memory_order_relaxed)) {
      auto now = Clock::now();
      most = std::max(most, std::chrono::duration<double, std::micro>(now - last).count());
      last = now;
    }
    return most;
  };
  std::vector<std::thread> others;
  int cpus = static_cast<int>(std::thread::hardware_concurrency());
  for (int cpu = 1; cpu < cpus; ++cpu) {
    others.emplace_back([&, cpu] {
      stay_on(cpu);
      while (!done) look(length);
    });
  }
  stay_on(0);
  for (double& most : longest) most = look(length);
  done = true;
  for (auto& thread : others) thread.join();
  return longest;
}

}  // namespace

int main() {
  double fault = median_of(9, page_fault), memory = median_of(5, populate);
  double trap = median_of(9, cpuid), thread = median_of(51, thread_start);
  double wake = percentile(wakes(51), 0.5);
  auto windows = gaps(200, std::chrono::milliseconds(20));
  std::printf(
      "{\"page_fault_us\": %.3f, \"memory_mb_s\": %.0f, \"cpuid_us\": %.3f, \"thread_us\": %.1f, "
      "\"wake_us\": %.1f, \"gap_p50_us\": %.1f, \"gap_p99_us\": %.1f, \"gap_most_us\": %.1f}\n",
      fault, memory, trap, thread, wake, percentile(windows, 0.5), percentile(windows, 0.99),
      percentile(windows, 1));
}
