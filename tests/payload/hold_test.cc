// Machine::hold(): all vCPUs out of the guest for a snapshot, whatever they are doing, and nothing
// lost of it. The guest is a few instructions on each of two vCPUs that talk to a device without
// pause and check every answer.
#include <gtest/gtest.h>
#include <poll.h>

#include <array>
#include <atomic>
#include <cstring>
#include <memory>
#include <set>
#include <thread>
#include <vector>

#include "tests/payload/guest.h"
#include "vmm/machine.h"

namespace vmm {
namespace {

constexpr Gpa kCode{0x10'0000};
constexpr uint64_t kPort = 0x1000;  // one port of 4 bytes for each vCPU
constexpr uint64_t kMmio = 0xC000'0000;
constexpr uint64_t kMmioEnd = 0x800;  // a write here: the vCPU is through

// EBX counts to EDI; EDX and ESI are the vCPU's port and MMIO address.
constexpr std::array<uint8_t, 30> kTalk{
    0x89, 0xD8,              // 0: mov eax, ebx
    0xEF,                    //    out dx, eax
    0xED,                    //    in eax, dx
    0x39, 0xD8,              //    cmp eax, ebx
    0x75, 0x14,              //    jne fail
    0x89, 0x1E,              //    mov [esi], ebx
    0x8B, 0x0E,              //    mov ecx, [esi]
    0x39, 0xD9,              //    cmp ecx, ebx
    0x75, 0x0C,              //    jne fail
    0x43,                    //    inc ebx
    0x39, 0xFB,              //    cmp ebx, edi
    0x72, 0xEB,              //    jb 0
    0x89, 0x9E, 0, 8, 0, 0,  //    mov [esi + kMmioEnd], ebx
    0xF4,                    //    hlt
    0x0F, 0x0B,              // fail: ud2, a triple fault
};

// What it is given is what it gives back, and each number must be the one after the last.
struct Echo : BusDevice {
  std::array<std::atomic<uint32_t>, 2> last{};
  std::atomic<int> wrong = 0;
  std::atomic<int> ended = 0;
  uint32_t stride;
  explicit Echo(uint32_t stride_bytes) : stride(stride_bytes) {}

  void read(uint64_t offset, std::span<uint8_t> data) override {
    uint32_t value = last[offset / stride];
    ASSERT_EQ(data.size(), 4u);
    std::memcpy(data.data(), &value, 4);
  }
  void write(uint64_t offset, std::span<const uint8_t> data) override {
    if (stride == 0x1000 && offset % stride == kMmioEnd) {
      ++ended;
      return;
    }
    uint32_t value = 0;
    ASSERT_EQ(data.size(), 4u);
    std::memcpy(&value, data.data(), 4);
    if (value != last[offset / stride] + 1) ++wrong;
    last[offset / stride] = value;
  }
};

class HoldTest : public ::testing::Test {
 protected:
  std::unique_ptr<Machine> machine_;
  Echo port_{4};
  Echo mmio_{0x1000};

  void SetUp() override {
    if (auto reason = payload_test::cannot_run()) GTEST_SKIP() << *reason;
  }
  void TearDown() override {
    if (machine_) machine_->halt_threads();
  }

  void make(uint32_t count_to) {
    auto machine = Machine::create({.memory_bytes = 16 << 20, .cpus = 2});
    ASSERT_TRUE(machine) << machine.error().text();
    machine_ = std::move(*machine);
    ASSERT_TRUE(machine_->pio().attach(kPort, 8, port_, "test"));
    ASSERT_TRUE(machine_->mmio().attach(kMmio, 0x2000, mmio_, "test"));
    ASSERT_TRUE(machine_->memory().write(kCode, std::as_bytes(std::span(kTalk))));
    boot::Entry entry{boot::Entry::Mode::kProtected32, kCode, Gpa{0}};
    for (uint32_t i = 0; i < 2; ++i) {
      const KvmVcpu& vcpu = machine_->vcpus()[i]->kvm();
      kvm_regs regs{};
      kvm_sregs sregs{};
      kvm_mp_state runnable{KVM_MP_STATE_RUNNABLE};
      ASSERT_TRUE(vcpu.control(KVM_GET_SREGS, &sregs, "KVM_GET_SREGS"));
      boot::set_entry_registers(entry, regs, sregs);
      regs.rbx = 1;
      regs.rdi = count_to;
      regs.rdx = kPort + 4 * i;
      regs.rsi = kMmio + 0x1000 * i;
      ASSERT_TRUE(vcpu.control(KVM_SET_MP_STATE, &runnable, "KVM_SET_MP_STATE"));
      ASSERT_TRUE(vcpu.control(KVM_SET_SREGS, &sregs, "KVM_SET_SREGS"));
      ASSERT_TRUE(vcpu.control(KVM_SET_REGS, &regs, "KVM_SET_REGS"));
    }
    for (auto& vcpu : machine_->vcpus()) ASSERT_TRUE(vcpu->start());
  }
  bool runs() {
    std::array<uint32_t, 2> before{port_.last[0], port_.last[1]};
    for (int i = 0; i < 10'000; ++i) {
      if (port_.last[0] != before[0] && port_.last[1] != before[1]) return true;
      std::this_thread::sleep_for(std::chrono::microseconds(100));
    }
    return false;
  }
};

TEST_F(HoldTest, AThousandPausesLoseNoAccess) {
  constexpr uint32_t kEnd = 0xFFFF'FFF0;
  make(kEnd);
  machine_->run();
  std::array<kvm_regs, 2> regs{};
  VcpuTask read = [&](uint32_t index, const KvmVcpu& vcpu) {
    ASSERT_TRUE(vcpu.control(KVM_GET_REGS, &regs[index], "KVM_GET_REGS"));
  };
  for (int i = 0; i < 1000; ++i) {
    machine_->hold(i % 2 == 0 ? &read : nullptr);
    if (i % 2 == 1) machine_->begin_tasks(read);
    machine_->wait_tasks();
    for (uint32_t cpu = 0; cpu < 2; ++cpu) {
      // Completed: a register is never behind the access that the device has seen.
      uint32_t counter = static_cast<uint32_t>(regs[cpu].rbx);
      EXPECT_LE(counter - mmio_.last[cpu], 1u);
      EXPECT_LE(counter - port_.last[cpu], 1u);
    }
    std::array<uint32_t, 2> before{port_.last[0], port_.last[1]};
    if (i % 100 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));
    EXPECT_EQ(port_.last[0], before[0]);
    EXPECT_EQ(port_.last[1], before[1]);
    machine_->release();
    if (i % 3 == 0) {
      ASSERT_TRUE(runs());
    }
  }
  EXPECT_FALSE(machine_->stop_reason()) << "the guest found a wrong answer";
  EXPECT_EQ(port_.wrong + mmio_.wrong, 0);
}

TEST_F(HoldTest, AGuestRunsToItsEndBetweenPauses) {
  make(20'000);
  machine_->run();
  while (mmio_.ended < 2 && !machine_->stop_reason()) {
    machine_->hold();
    machine_->release();
  }
  EXPECT_FALSE(machine_->stop_reason());
  for (uint32_t cpu = 0; cpu < 2; ++cpu) {
    EXPECT_EQ(port_.last[cpu], 19'999u);
    EXPECT_EQ(mmio_.last[cpu], 19'999u);
  }
  EXPECT_EQ(port_.wrong + mmio_.wrong, 0);
  // Now both are halted in the kernel, and leave it all the same.
  for (int i = 0; i < 50; ++i) {
    machine_->hold();
    machine_->release();
  }
}

TEST_F(HoldTest, ThePauseOfTheUserOutlivesIt) {
  make(0xFFFF'FFF0);
  machine_->run();
  EXPECT_TRUE(runs());
  machine_->pause();
  machine_->hold();
  machine_->release();
  EXPECT_TRUE(machine_->paused());
  uint32_t before = port_.last[0];
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_EQ(port_.last[0], before) << "the guest runs although the user paused it";

  machine_->hold();
  machine_->hold();
  machine_->run();
  EXPECT_FALSE(machine_->paused());
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_EQ(port_.last[0], before) << "the guest runs although it is held";
  machine_->release();
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_EQ(port_.last[0], before) << "the guest runs although it is held a second time";
  machine_->pause();  // returns: all are parked
  machine_->run();
  machine_->release();
  EXPECT_TRUE(runs());
}

TEST_F(HoldTest, EachVcpuRunsTheTaskOnItsOwnThread) {
  make(0xFFFF'FFF0);
  machine_->run();
  std::array<std::thread::id, 2> first, second;
  machine_->hold();
  VcpuTask task = [&](uint32_t index, const KvmVcpu&) {
    first[index] = std::this_thread::get_id();
  };
  machine_->begin_tasks(task);
  machine_->wait_tasks();
  std::atomic<int> met = 0;
  VcpuTask meet = [&](uint32_t index, const KvmVcpu&) {
    second[index] = std::this_thread::get_id();
    for (++met; met < 2;) std::this_thread::yield();  // returns only where both run at once
  };
  machine_->begin_tasks(meet);
  machine_->wait_tasks();
  machine_->release();
  EXPECT_EQ(first, second);
  EXPECT_EQ((std::set<std::thread::id>{first[0], first[1], std::this_thread::get_id()}).size(), 3u);
}

TEST_F(HoldTest, ThreadsThatHoldPauseRunAndStopLeaveNobodyWaiting) {
  make(0xFFFF'FFF0);
  machine_->run();
  std::vector<std::thread> threads;
  for (int t = 0; t < 2; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 300; ++i) {
        machine_->hold();
        machine_->release();
      }
    });
  }
  threads.emplace_back([&] {
    for (int i = 0; i < 300; ++i) {
      machine_->pause();
      machine_->run();
    }
    machine_->stop({StopReason::Kind::kRequested, 0, ""});
  });
  for (auto& thread : threads) thread.join();
  EXPECT_TRUE(machine_->paused());
  machine_->hold();
  uint32_t before = port_.last[0];
  machine_->release();
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_EQ(port_.last[0], before) << "a stopped guest runs on when it is released";
  EXPECT_EQ(port_.wrong + mmio_.wrong, 0);
}

TEST_F(HoldTest, AMachineThatNeverRanIsHeld) {
  auto machine = Machine::create({.memory_bytes = 16 << 20, .cpus = 2});
  ASSERT_TRUE(machine) << machine.error().text();
  std::array<int, 2> called{};
  VcpuTask task = [&](uint32_t index, const KvmVcpu&) { ++called[index]; };
  (*machine)->hold(&task);
  (*machine)->wait_tasks();
  (*machine)->release();
  EXPECT_EQ(called, (std::array{1, 1}));
}

}  // namespace
}  // namespace vmm
