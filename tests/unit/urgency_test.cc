#include "vmm/base/urgency.h"

#include <gtest/gtest.h>
#include <linux/capability.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <functional>
#include <future>
#include <thread>

namespace base {
namespace {

constexpr pid_t kThisThread = 0;

int policy_of(pid_t thread) { return ::sched_getscheduler(thread) & ~SCHED_RESET_ON_FORK; }

int priority_of(pid_t thread) {
  sched_param param{};
  return ::sched_getparam(thread, &param) == 0 ? param.sched_priority : -1;
}

// A thread that waits, with a policy of its own.
class Waiting {
 public:
  explicit Waiting(int policy = SCHED_OTHER, int priority = 0) {
    std::promise<pid_t> made;
    thread_ = std::thread([&, policy, priority] {
      const sched_param param{.sched_priority = priority};
      bool set = ::sched_setscheduler(kThisThread, policy, &param) == 0;
      made.set_value(set ? ::gettid() : -1);
      ended_.get_future().wait();
    });
    id_ = made.get_future().get();
  }
  ~Waiting() {
    ended_.set_value();
    thread_.join();
  }
  pid_t id() const { return id_; }

 private:
  std::promise<void> ended_;
  std::thread thread_;
  pid_t id_ = 0;
};

// Gives up CAP_SYS_NICE, of the calling thread only.
void give_up_permission() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2]{};
  ASSERT_EQ(::syscall(SYS_capget, &header, data), 0);
  data[0].effective &= ~(1u << CAP_SYS_NICE);
  ASSERT_EQ(::syscall(SYS_capset, &header, data), 0);
}

class UrgencyTest : public testing::Test {
 protected:
  void SetUp() override {
    if (auto may = may_be_urgent(); !may) GTEST_SKIP() << may.error().text();
  }
  // Runs `body` on a thread without the permission, where the limit is `most`.
  static void run_without_permission(rlim_t most, const std::function<void()>& body) {
    rlimit before{};
    ASSERT_EQ(::getrlimit(RLIMIT_RTPRIO, &before), 0);
    const rlimit limit{.rlim_cur = most, .rlim_max = std::max(most, before.rlim_max)};
    if (::setrlimit(RLIMIT_RTPRIO, &limit) != 0) {
      GTEST_SKIP() << "the limit is " << before.rlim_max << ", and may not be raised here";
    }
    std::thread([&] {
      give_up_permission();
      body();
    }).join();
    ASSERT_EQ(::setrlimit(RLIMIT_RTPRIO, &before), 0);
  }
};

TEST_F(UrgencyTest, IsOfWhoIsRaisedAndNoLonger) {
  Waiting first, second(SCHED_BATCH), other;
  ASSERT_EQ(::sched_getscheduler(kThisThread), SCHED_OTHER);
  {
    Urgency urgency(3);
    urgency.raise_caller();
    for (pid_t thread : {first.id(), second.id()}) urgency.raise(thread);
    for (pid_t thread : {kThisThread, first.id(), second.id()}) {
      EXPECT_EQ(policy_of(thread), SCHED_FIFO);
    }
    EXPECT_EQ(policy_of(other.id()), SCHED_OTHER);
    EXPECT_GT(priority_of(kThisThread), priority_of(first.id()));
    EXPECT_EQ(priority_of(first.id()), priority_of(second.id()));
    urgency.lower();
    EXPECT_EQ(policy_of(first.id()), SCHED_OTHER);
    urgency.raise_caller();
    urgency.raise(first.id());
    EXPECT_EQ(policy_of(first.id()), SCHED_FIFO);
  }
  // With no mark left, where that is allowed.
  EXPECT_EQ(::sched_getscheduler(kThisThread), SCHED_OTHER);
  EXPECT_EQ(::sched_getscheduler(first.id()), SCHED_OTHER);
  EXPECT_EQ(::sched_getscheduler(second.id()), SCHED_BATCH);
}

TEST_F(UrgencyTest, WhoIsRealTimeAlreadyStaysAsHeIs) {
  Waiting round_robin(SCHED_RR, 3);
  {
    Urgency urgency(2);
    urgency.raise_caller();
    urgency.raise(round_robin.id());
    EXPECT_EQ(policy_of(round_robin.id()), SCHED_RR);
    EXPECT_EQ(priority_of(round_robin.id()), 3);
  }
  EXPECT_EQ(policy_of(round_robin.id()), SCHED_RR);
  EXPECT_EQ(priority_of(round_robin.id()), 3);
}

TEST_F(UrgencyTest, ThreadsMadeMeanwhileAreOrdinary) {
  Urgency urgency(1);
  urgency.raise_caller();
  int policy = -1;
  std::thread([&] { policy = policy_of(kThisThread); }).join();
  EXPECT_EQ(policy, SCHED_OTHER);
}

TEST_F(UrgencyTest, AThreadThatIsNotThereIsPassedOver) {
  pid_t ended = 0;
  {
    Waiting thread;
    ended = thread.id();
  }
  Urgency urgency(3);
  urgency.raise_caller();
  for (pid_t thread : {pid_t{0}, ended}) urgency.raise(thread);
  EXPECT_EQ(priority_of(kThisThread), 2);
}

// Who is held must not go before who holds him.
TEST_F(UrgencyTest, NobodyIsRaisedByAnOrdinaryThread) {
  Waiting other;
  Urgency urgency(1);
  urgency.raise(other.id());
  EXPECT_EQ(policy_of(other.id()), SCHED_OTHER);
}

TEST_F(UrgencyTest, WithoutPermissionNothingChanges) {
  run_without_permission(0, [] {
    auto may = may_be_urgent();
    ASSERT_FALSE(may);
    EXPECT_EQ(may.error().os_error(), EPERM);
    Urgency urgency(1);
    urgency.raise_caller();
    EXPECT_EQ(policy_of(kThisThread), SCHED_OTHER);
  });
}

// The kernel would end the process for many moments that it takes for one.
TEST_F(UrgencyTest, WhereRealTimeIsLimitedNothingChanges) {
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_RTTIME, &before), 0);
  const rlimit limit{.rlim_cur = 1'000'000, .rlim_max = before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_RTTIME, &limit), 0);
  auto may = may_be_urgent();
  EXPECT_FALSE(may);
  Urgency urgency(1);
  urgency.raise_caller();
  EXPECT_EQ(policy_of(kThisThread), SCHED_OTHER);
  ASSERT_EQ(::setrlimit(RLIMIT_RTTIME, &before), 0);
}

// Again and again: who may make a thread urgent may not take every mark of it away.
TEST_F(UrgencyTest, ALimitOfTwoIsPermissionEnough) {
  run_without_permission(2, [] {
    Waiting other;
    for (int i = 0; i < 3; ++i) {
      EXPECT_TRUE(may_be_urgent());
      Urgency urgency(2);
      urgency.raise_caller();
      urgency.raise(other.id());
      EXPECT_EQ(policy_of(kThisThread), SCHED_FIFO);
      EXPECT_EQ(policy_of(other.id()), SCHED_FIFO);
      urgency.lower();
      EXPECT_EQ(policy_of(kThisThread), SCHED_OTHER);
      EXPECT_EQ(policy_of(other.id()), SCHED_OTHER);
    }
  });
}

}  // namespace
}  // namespace base
