#include "vmm/base/aside.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <pthread.h>
#include <sched.h>

#include <array>
#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

namespace base {
namespace {

using testing::ElementsAre;

cpu_set_t allowed_cpus() {
  cpu_set_t cpus;
  CPU_ZERO(&cpus);
  EXPECT_EQ(sched_getaffinity(0, sizeof cpus, &cpus), 0);
  return cpus;
}

std::string own_name() {
  std::array<char, 16> name{};
  pthread_getname_np(pthread_self(), name.data(), name.size());
  return name.data();
}

TEST(Aside, DoesEverythingInOrderBeforeItEnds) {
  std::vector<int> done;
  std::thread::id thread;
  {
    Aside aside("aside");
    for (int i = 0; i < 4; ++i) aside.post([&done, i] { done.push_back(i); });
    aside.post([&thread] { thread = std::this_thread::get_id(); });
  }
  EXPECT_THAT(done, ElementsAre(0, 1, 2, 3));
  EXPECT_NE(thread, std::this_thread::get_id());
}

TEST(Aside, AnswersInTheOrderOfTheQuestions) {
  std::vector<int> asked;
  auto ask = [&asked](Aside& aside) {
    auto first = aside.ask([&asked] { return asked.emplace_back(1); });
    auto second = aside.ask([&asked] { return std::make_unique<int>(asked.emplace_back(2)); });
    EXPECT_EQ(*second.get(), 2);  // can be moved only
    EXPECT_EQ(first.get(), 1);
  };
  Aside with_a_thread("aside"), without;
  ask(with_a_thread);
  ask(without);
  EXPECT_THAT(asked, ElementsAre(1, 2, 1, 2));
}

TEST(Aside, WithoutAThreadEverythingIsDoneAtOnce) {
  const auto here = std::this_thread::get_id();
  std::thread::id where;
  Aside aside;
  aside.post([&] { where = std::this_thread::get_id(); });
  EXPECT_EQ(where, here);
  auto answer = aside.ask([] { return 7; });
  EXPECT_EQ(aside.get(answer), 7);
  auto body = aside.hand_over("body", [&] { where = std::this_thread::get_id(); });
  ASSERT_TRUE(body);
  body->join();
  EXPECT_NE(where, here);
}

TEST(Aside, ItsOwnerGoesOnMeanwhile) {
  std::atomic<bool> go_on = false, seen = false;
  {
    Aside aside("aside");
    aside.post([&] {
      go_on.wait(false);
      seen = true;
    });
    EXPECT_FALSE(seen);
    go_on = true;
    go_on.notify_one();
  }
  EXPECT_TRUE(seen);
}

// The CPUs of the thread that asks, once they are `wanted`, or what they are after a long time.
cpu_set_t cpus_at_last(const cpu_set_t& wanted) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  for (;;) {
    cpu_set_t now = allowed_cpus();
    if (CPU_EQUAL(&now, &wanted) || std::chrono::steady_clock::now() > end) return now;
  }
}

TEST(Aside, TakesTheOwnersCpuOnlyWhereThatWaitsForIt) {
  const cpu_set_t all = allowed_cpus();
  if (CPU_COUNT(&all) < 2) GTEST_SKIP() << "one CPU only";
  Aside aside("aside");
  auto first = aside.ask(allowed_cpus);
  first.wait();
  auto waited_for = aside.ask([&all] { return cpus_at_last(all); });
  const cpu_set_t then = aside.get(waited_for), before = first.get();
  EXPECT_TRUE(CPU_EQUAL(&then, &all));
  EXPECT_EQ(CPU_COUNT(&before), CPU_COUNT(&all) - 1);
}

TEST(Aside, WhoWaitsForItsEndSharesTheCpuAndKeepsHisOwn) {
  const cpu_set_t all = allowed_cpus();
  cpu_set_t then;
  {
    Aside aside("aside");
    aside.post([&] { then = cpus_at_last(all); });
  }
  EXPECT_TRUE(CPU_EQUAL(&then, &all));
  const cpu_set_t still = allowed_cpus();
  EXPECT_TRUE(CPU_EQUAL(&still, &all));
}

TEST(Aside, ItsThreadGoesOnAsAnother) {
  std::vector<std::string> done;
  std::optional<Aside> aside("aside");
  aside->post([&] { done.push_back(own_name()); });
  auto body = aside->hand_over("a body with a long name", [&] { done.push_back(own_name()); });
  aside.reset();  // which has no thread any more
  ASSERT_TRUE(body);
  body->join();
  EXPECT_THAT(done, ElementsAre("aside", "a body with a l"));
}

TEST(Aside, WhoIsHandedItsThreadNeedNotWaitForACpu) {
  const cpu_set_t all = allowed_cpus();
  Aside aside("aside");
  std::atomic<bool> end = false;
  auto body = aside.hand_over("body", [&] { end.wait(false); });
  ASSERT_TRUE(body);
  // By now, whether it has run or not.
  cpu_set_t its;
  ASSERT_EQ(pthread_getaffinity_np(body->native_handle(), sizeof its, &its), 0);
  EXPECT_TRUE(CPU_EQUAL(&its, &all));
  end = true;
  end.notify_one();
  body->join();
}

TEST(Aside, WhatATaskHoldsIsGoneWithIt) {
  auto held = std::make_shared<int>();
  std::weak_ptr<int> watched = held;
  std::atomic<bool> gone = false;
  {
    Aside aside("aside");
    aside.post([held = std::move(held)] {});
    aside.post([&] { gone = watched.expired(); });
  }
  EXPECT_TRUE(gone);
}

}  // namespace
}  // namespace base
