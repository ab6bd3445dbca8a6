// The machine under payload guests: what ends a run, and control from outside while they run.
#include "vmm/machine.h"

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <stdexcept>
#include <thread>
#include <vector>

#include "tests/payload/guest.h"
#include "vmm/layout.h"

namespace payload_test {
namespace {

using vmm::StopReason;

class MachineTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (auto reason = cannot_run()) GTEST_SKIP() << *reason;
  }
  static std::unique_ptr<Guest> make(const Guest::Options& options) {
    auto guest = Guest::create(options);
    if (!guest) throw std::runtime_error(guest.error().text());
    return std::move(*guest);
  }
  static void expect_exit(Guest& guest, int status) {
    auto reason = guest.wait();
    ASSERT_TRUE(reason) << "the guest does not end; it printed:\n" << guest.all_output();
    EXPECT_EQ(reason->kind, StopReason::Kind::kExit) << reason->detail;
    EXPECT_EQ(reason->status, status) << guest.all_output();
  }
};

TEST_F(MachineTest, AGuestPrintsAndGivesItsStatus) {
  auto guest = make({.payload = "hello", .command_line = "status=42 word=x"});
  EXPECT_TRUE(guest->machine().paused());
  EXPECT_FALSE(guest->machine().stop_reason());
  guest->machine().run();
  expect_exit(*guest, 42);
  EXPECT_TRUE(guest->machine().paused());
  std::string output = guest->all_output();
  EXPECT_NE(output.find("hello: memory_mib=63 "), std::string::npos) << output;
  EXPECT_NE(output.find("cmdline=\"status=42 word=x\""), std::string::npos) << output;
}

TEST_F(MachineTest, NothingRunsBeforeRunAndAfterTheStop) {
  auto guest = make({.payload = "hello", .command_line = "status=1"});
  guest->machine().pause();
  EXPECT_EQ(guest->machine().vcpus()[0]->exits(), 0u);
  guest->machine().run();
  expect_exit(*guest, 1);
  guest->machine().pause();
  uint64_t exits = guest->machine().vcpus()[0]->exits();
  guest->machine().run();  // a machine that has stopped does not start again
  EXPECT_TRUE(guest->machine().paused());
  guest->machine().pause();
  EXPECT_EQ(guest->machine().vcpus()[0]->exits(), exits);
}

TEST_F(MachineTest, PauseAndResumeAThousandTimesUnderAFullSpeedWriter) {
  auto guest = make({.payload = "dirty", .command_line = "size=16M verify=1 order=random"});
  vmm::Machine& machine = guest->machine();
  machine.run();
  std::string output = guest->wait_for_output("tsc_khz=");
  vmm::Gpa state{std::strtoull(field(output, "state").c_str(), nullptr, 16)};
  ASSERT_NE(state.value, 0u) << output;
  using Page = std::array<uint64_t, vmm::kPageSize / 8>;
  auto state_page = [&] { return *machine.memory().load<Page>(state); };
  for (int i = 0; i < 1000; ++i) {
    machine.pause();
    ASSERT_TRUE(machine.paused());
    Page paused = state_page();
    std::this_thread::yield();
    ASSERT_EQ(state_page(), paused) << "the guest runs while it is paused";
    machine.run();
    // Every other time the next pause comes at once, before the guest is entered.
    while (i % 2 == 0 && state_page() == paused) {
      ASSERT_FALSE(machine.stop_reason());
      std::this_thread::yield();
    }
  }
  guest->type("q");
  expect_exit(*guest, 0);
  output = guest->all_output();
  EXPECT_EQ(field(output, "verified"), "yes") << output;
}

// struct pvclock_vcpu_time_info (KVM's msr.rst, MSR_KVM_SYSTEM_TIME_NEW).
struct SharedClock {
  uint32_t version, padding;
  uint64_t tsc_timestamp, system_time;
  uint32_t tsc_to_system_mul;
  int8_t tsc_shift;
  uint8_t flags, padding2[2];
};
static_assert(sizeof(SharedClock) == 32);

// Linux's watchdogs look at a flag of the clock that KVM shares with the guest.
TEST_F(MachineTest, AGuestThatStoodStillForLongIsToldThatItDid) {
  constexpr uint32_t kMsrSystemTime = 0x4B56'4D01;
  constexpr vmm::Gpa kClock{0x50000};  // payloads do not use what is below 1 MiB
  constexpr uint8_t kGuestStopped = 1 << 1;
  auto guest = make({.payload = "dirty", .command_line = "size=1M"});
  vmm::Machine& machine = guest->machine();
  auto clock = [&] { return *machine.memory().load<SharedClock>(kClock); };
  ASSERT_TRUE(machine.vcpus()[0]->kvm().set_msrs({{kMsrSystemTime, 0, kClock.value | 1}}));
  machine.run();
  guest->wait_for_output("dirty: round=");
  auto pause_for = [&](std::chrono::milliseconds time) {
    machine.pause();
    ASSERT_TRUE(machine.memory().store<uint8_t>(kClock + offsetof(SharedClock, flags),
                                                uint8_t(clock().flags & ~kGuestStopped)));
    // Writes the page anew when the guest runs again.
    ASSERT_TRUE(machine.vcpus()[0]->kvm().set_msrs({{kMsrSystemTime, 0, kClock.value | 1}}));
    uint32_t version = clock().version;
    std::this_thread::sleep_for(time);
    machine.run();
    for (int i = 0; i < 10'000 && (clock().version == version || clock().version % 2); ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    EXPECT_NE(clock().version, version) << "KVM has not written the clock";
  };
  const auto before = std::chrono::steady_clock::now();
  pause_for(std::chrono::milliseconds(10));
  // Where the host itself stood still there is nothing to see.
  if (std::chrono::steady_clock::now() - before < std::chrono::seconds(1)) {
    EXPECT_EQ(clock().flags & kGuestStopped, 0);
  }
  pause_for(std::chrono::milliseconds(1'200));
  EXPECT_EQ(clock().flags & kGuestStopped, kGuestStopped);
}

TEST_F(MachineTest, AStopFromOutsideEndsARunningGuest) {
  auto guest = make({.payload = "dirty", .command_line = "size=8M"});
  guest->machine().run();
  guest->wait_for_output("state=");
  guest->machine().stop({StopReason::Kind::kRequested, 0, "first"});
  guest->machine().stop({StopReason::Kind::kError, 0, "second"});
  auto reason = guest->wait();
  ASSERT_TRUE(reason);
  EXPECT_EQ(reason->kind, StopReason::Kind::kRequested);
  EXPECT_EQ(reason->detail, "first");
  guest->machine().run();
  EXPECT_TRUE(guest->machine().paused());
}

TEST_F(MachineTest, ItsThreadsEndWhileTheGuestRuns) {
  for (uint32_t cpus : {1u, 4u}) {
    auto guest = make({.payload = "dirty", .command_line = "size=8M", .cpus = cpus});
    guest->machine().run();
    guest->wait_for_output("state=");
    guest->machine().halt_threads();
    EXPECT_EQ(guest->machine().cpus(), 0u);
    EXPECT_FALSE(guest->machine().stop_reason());
    guest->machine().stop({StopReason::Kind::kRequested, 0, ""});  // nobody is left to park
    EXPECT_TRUE(guest->machine().stop_reason());
  }
}

// The guest's own stop and the end of the threads at the same time, over and over.
TEST_F(MachineTest, ItsThreadsEndWhileTheGuestStopsItself) {
  for (int i = 0; i < 30; ++i) {
    auto guest = make({.payload = "hello", .cpus = 3});
    guest->machine().run();
    if (i % 3 != 0) guest->wait_for_output(i % 3 == 1 ? "hello: memory" : "ring3=");
    guest->machine().halt_threads();
    auto reason = guest->machine().stop_reason();
    if (reason) {
      EXPECT_EQ(reason->kind, StopReason::Kind::kExit);
    }
  }
}

TEST_F(MachineTest, IsDestroyedBeforeAndAfterBoot) {
  auto unbooted = vmm::Machine::create({.memory_bytes = 16 << 20, .cpus = 2});
  ASSERT_TRUE(unbooted) << unbooted.error().text();
  (*unbooted)->pause();  // returns: nothing runs
  EXPECT_TRUE((*unbooted)->paused());
  unbooted->reset();
  make({.payload = "hello", .cpus = 2});  // booted, never run
}

TEST_F(MachineTest, RunAndPauseFromSeveralThreadsLeaveNobodyWaiting) {
  auto guest = make({.payload = "dirty", .command_line = "size=8M verify=1", .cpus = 2});
  guest->machine().run();
  std::vector<std::thread> controllers;
  for (int t = 0; t < 4; ++t) {
    controllers.emplace_back([&, t] {
      for (int i = 0; i < 200; ++i) {
        if (t % 2 == 0) {
          guest->machine().pause();
        } else {
          guest->machine().run();
        }
      }
    });
  }
  for (auto& controller : controllers) controller.join();
  guest->machine().run();
  guest->type("q");
  expect_exit(*guest, 0);
}

TEST_F(MachineTest, TwoMachinesRunAtOnce) {
  auto options = [](const char* seed) {
    return Guest::Options{.payload = "dirty",
                          .command_line = std::string("size=16M verify=1 rounds=20 seed=") + seed};
  };
  auto first = make(options("1"));
  auto second = make(options("2"));
  first->machine().run();
  second->machine().run();
  expect_exit(*second, 0);
  expect_exit(*first, 0);
  for (Guest* guest : {first.get(), second.get()}) {
    std::string output = guest->all_output();
    EXPECT_EQ(field(output, "verified"), "yes") << output;
    EXPECT_EQ(field(output, "rounds"), "20") << output;
  }
}

TEST_F(MachineTest, MemoryAboveFourGiBWorks) {
  auto guest = make({.payload = "dirty",
                     .command_line = "start=0x100000000 size=32M verify=1 rounds=5",
                     .memory_bytes = 6 * vmm::layout::kGiB});
  guest->machine().run();
  expect_exit(*guest, 0);
  std::string output = guest->all_output();
  EXPECT_EQ(field(output, "gpa"), "0x100000000") << output;
  EXPECT_EQ(field(output, "verified"), "yes") << output;
  // The host sees what the guest wrote there: the pages begin with a magic number of their own.
  auto& memory = guest->machine().memory();
  for (uint64_t page : {0u, 1u, 8191u}) {
    uint64_t index = *memory.load<uint64_t>(vmm::layout::kHighRamStart + page * vmm::kPageSize + 8);
    EXPECT_EQ(index, page);
  }
}

TEST_F(MachineTest, RefusesWhatItCannotBe) {
  EXPECT_FALSE(vmm::Machine::create({.memory_bytes = 16 << 20, .cpus = 0}));
  EXPECT_FALSE(vmm::Machine::create({.memory_bytes = 16 << 20, .cpus = 65}));
  EXPECT_FALSE(vmm::Machine::create({.memory_bytes = 0}));
  EXPECT_FALSE(vmm::Machine::create({.memory_bytes = 4097}));
}

class MachineRngTest : public MachineTest, public ::testing::WithParamInterface<const char*> {};

TEST_P(MachineRngTest, GivesAGuestRandomBytes) {
  auto guest = make({.payload = "virtio",
                     .command_line = std::string("mode=rng ops=200 ") + GetParam(),
                     .rng = true});
  guest->machine().run();
  expect_exit(*guest, 0);
  std::string output = guest->all_output();
  EXPECT_EQ(field(output, "requests"), "200") << output;
  EXPECT_NE(output.find("virtio: done devices=1"), std::string::npos) << output;
  bool polls = std::string(GetParam()).find("irq=1") == std::string::npos;
  EXPECT_EQ(field(output, "interrupts") == "0", polls) << output;
}

// As the program does it: the guest runs first.
TEST_F(MachineTest, WhatItAsksOfItsDevicesBeforeTheyBeginIsDoneThen) {
  auto guest = make({.payload = "virtio",
                     .command_line = "mode=rng ops=200 irq=1",
                     .rng = true,
                     .devices_begin = false});
  guest->machine().run();
  guest->wait_for_output("virtio: start mode=rng");
  EXPECT_FALSE(guest->machine().stop_reason());
  auto begun = guest->platform().begin();
  ASSERT_TRUE(begun) << begun.error().text();
  expect_exit(*guest, 0);
  EXPECT_EQ(field(guest->all_output(), "requests"), "200");
}

INSTANTIATE_TEST_SUITE_P(Ways, MachineRngTest,
                         ::testing::Values("", "irq=1", "irq=1 event_idx=0",
                                           "event_idx=0 indirect=0"));

}  // namespace
}  // namespace payload_test
