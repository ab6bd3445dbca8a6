// A vCPU under a few instructions of its own, with a device that watches it: what an exit leaves
// behind when the vCPU is parked in the middle of it, and the accesses that a device gets.
#include "vmm/vcpu.h"

#include <gtest/gtest.h>
#include <poll.h>

#include <atomic>
#include <functional>
#include <thread>
#include <vector>

#include "tests/payload/guest.h"
#include "vmm/layout.h"
#include "vmm/machine.h"

namespace vmm {
namespace {

constexpr Gpa kCode{0x10'0000};
constexpr uint64_t kPort = 0x1000;
constexpr uint64_t kMmio = 0xC000'0000;

struct Device : BusDevice {
  struct Access {
    uint64_t offset;
    std::vector<uint8_t> data;
    bool operator==(const Access&) const = default;
  };
  std::function<void()> during_read = [] {};
  uint8_t next = 0x51;
  std::vector<Access> reads, writes;

  void read(uint64_t offset, std::span<uint8_t> data) override {
    during_read();
    for (uint8_t& byte : data) byte = next++;
    reads.push_back({offset, {data.begin(), data.end()}});
  }
  void write(uint64_t offset, std::span<const uint8_t> data) override {
    writes.push_back({offset, {data.begin(), data.end()}});
  }
};

class VcpuTest : public ::testing::Test {
 protected:
  std::unique_ptr<Machine> machine_;
  Device device_;

  void SetUp() override {
    if (auto reason = payload_test::cannot_run()) GTEST_SKIP() << *reason;
  }
  void TearDown() override {
    if (machine_) machine_->halt_threads();
  }

  // 32-bit code without paging, at kCode; ends in `hlt` with interrupts off, unless it stops
  // before.
  void boot(std::vector<uint8_t> code, uint32_t cpus = 1) {
    auto machine = Machine::create({.memory_bytes = 16 << 20, .cpus = cpus});
    ASSERT_TRUE(machine) << machine.error().text();
    machine_ = std::move(*machine);
    ASSERT_TRUE(machine_->pio().attach(kPort, 0x10, device_, "test"));
    ASSERT_TRUE(machine_->mmio().attach(kMmio, 0x10000, device_, "test"));
    code.push_back(0xF4);
    ASSERT_TRUE(machine_->memory().write(kCode, std::as_bytes(std::span(code))));
    boot::Entry entry{boot::Entry::Mode::kProtected32, kCode, Gpa{0}};
    ASSERT_TRUE(machine_->boot(entry));
  }
  kvm_regs registers() {
    kvm_regs regs{};
    EXPECT_TRUE(machine_->vcpus()[0]->kvm().control(KVM_GET_REGS, &regs, "KVM_GET_REGS"));
    return regs;
  }
  // Runs until the device is read, and pauses the machine while the device handles that.
  void pause_during_read() {
    std::thread control;
    device_.during_read = [&] {
      if (control.joinable()) return;
      control = std::thread([this] { machine_->pause(); });
      while (!machine_->paused()) std::this_thread::yield();
      read_.signal();
    };
    machine_->run();
    pollfd event{read_.fd(), POLLIN, 0};
    ASSERT_EQ(::poll(&event, 1, 60'000), 1) << "the guest does not read the device";
    control.join();
  }
  base::EventFd read_ = std::move(*base::EventFd::create());
  std::atomic<bool> ending_ = false;
};

TEST_F(VcpuTest, APortReadIsInTheRegistersOnceParked) {
  // mov dx, kPort; in al, dx
  boot({0x66, 0xBA, 0x00, 0x10, 0xEC});
  pause_during_read();
  EXPECT_EQ(registers().rip, kCode.value + 5);
  EXPECT_EQ(registers().rax & 0xFF, 0x51u);
  EXPECT_EQ(device_.reads.size(), 1u);
}

TEST_F(VcpuTest, AnMmioReadIsInTheRegistersOnceParked) {
  // mov eax, [kMmio + 4]
  boot({0xA1, 0x04, 0x00, 0x00, 0xC0});
  pause_during_read();
  EXPECT_EQ(registers().rip, kCode.value + 5);
  EXPECT_EQ(registers().rax, 0x54535251u);
}

TEST_F(VcpuTest, AReadAcrossAPageIsCompletedPieceByPieceOnceParked) {
  // mov eax, [kMmio + 0xFFF]: one byte in the first page, three in the second
  boot({0xA1, 0xFF, 0x0F, 0x00, 0xC0});
  pause_during_read();
  EXPECT_EQ(registers().rip, kCode.value + 5);
  EXPECT_EQ(registers().rax, 0x54535251u);
  std::vector<Device::Access> expected = {{0xFFF, {0x51}}, {0x1000, {0x52, 0x53, 0x54}}};
  EXPECT_EQ(device_.reads, expected);
}

TEST_F(VcpuTest, AWriteIsMadeOnceAlthoughTheVcpuParks) {
  // mov eax, 0x11223344; mov [kMmio + 8], eax; mov ecx, [kMmio]
  boot({0xB8, 0x44, 0x33, 0x22, 0x11, 0xA3, 0x08, 0x00, 0x00, 0xC0, 0x8B, 0x0D, 0, 0, 0, 0xC0});
  pause_during_read();
  std::vector<Device::Access> expected = {{8, {0x44, 0x33, 0x22, 0x11}}};
  EXPECT_EQ(device_.writes, expected);
  EXPECT_EQ(registers().rcx, 0x54535251u);
}

TEST_F(VcpuTest, StringInputFillsMemory) {
  // mov dx, kPort; mov edi, 0x200000; mov ecx, 16; cld; rep insb; mov al, [kMmio]
  boot({0x66, 0xBA, 0x00, 0x10, 0xBF, 0x00, 0x00, 0x20, 0x00, 0xB9, 0x10,
        0x00, 0x00, 0x00, 0xFC, 0xF3, 0x6C, 0xA0, 0x00, 0x00, 0x00, 0xC0});
  std::atomic<int> reads = 0;
  base::EventFd done = std::move(*base::EventFd::create());
  device_.during_read = [&] {
    if (++reads == 17) done.signal();
  };
  machine_->run();
  pollfd event{done.fd(), POLLIN, 0};
  ASSERT_EQ(::poll(&event, 1, 60'000), 1);
  machine_->pause();
  for (uint8_t i = 0; i < 16; ++i) {
    EXPECT_EQ(*machine_->memory().load<uint8_t>(Gpa{0x20'0000u + i}), 0x51 + i);
  }
  EXPECT_EQ(registers().rax & 0xFF, 0x61u);
}

TEST_F(VcpuTest, ATripleFaultIsAReset) {
  boot({0x0F, 0x0B}, 2);  // ud2, with no interrupt table
  machine_->run();
  pollfd event{machine_->stopped().fd(), POLLIN, 0};
  ASSERT_EQ(::poll(&event, 1, 60'000), 1);
  EXPECT_EQ(machine_->stop_reason()->kind, StopReason::Kind::kReset);
  EXPECT_EQ(machine_->stop_reason()->detail, "triple fault");
}

TEST_F(VcpuTest, PortsAndAddressesWithoutDeviceReadAllOnes) {
  // mov dx, 0x2000; in eax, dx; mov ecx, [0xC0200000]; mov ebx, [kMmio]
  boot({0x66, 0xBA, 0x00, 0x20, 0xED, 0x8B, 0x0D, 0x00, 0x00, 0x20, 0xC0, 0x8B, 0x1D, 0, 0, 0,
        0xC0});
  pause_during_read();
  EXPECT_EQ(registers().rax, 0xFFFFFFFFu);
  EXPECT_EQ(registers().rcx, 0xFFFFFFFFu);
}

// The end of the threads takes the vCPUs away one by one, while the last one's device handler looks
// at them all, again and again.
TEST_F(VcpuTest, TheThreadsEndWhileAVcpuStopsTheMachine) {
  for (int round = 0; round < 5; ++round) {
    // mov eax, [kMmio]; the boot processor starts behind it, at hlt
    boot({0xA1, 0x00, 0x00, 0x00, 0xC0}, 4);
    kvm_regs regs = registers();
    kvm_sregs sregs{};
    kvm_mp_state runnable{KVM_MP_STATE_RUNNABLE};
    ASSERT_TRUE(machine_->vcpus()[0]->kvm().control(KVM_GET_SREGS, &sregs, "KVM_GET_SREGS"));
    const KvmVcpu& last = machine_->vcpus()[3]->kvm();
    sregs.apic_base &= ~uint64_t{0x100};  // not the boot processor (MSR IA32_APIC_BASE, bit 8)
    ASSERT_TRUE(last.control(KVM_SET_SREGS, &sregs, "KVM_SET_SREGS"));
    ASSERT_TRUE(last.control(KVM_SET_REGS, &regs, "KVM_SET_REGS"));
    ASSERT_TRUE(last.control(KVM_SET_MP_STATE, &runnable, "KVM_SET_MP_STATE"));
    regs.rip += 5;
    ASSERT_TRUE(machine_->vcpus()[0]->kvm().control(KVM_SET_REGS, &regs, "KVM_SET_REGS"));
    device_.during_read = [&] {
      read_.signal();
      while (!ending_) std::this_thread::yield();
      for (int i = 0; i < 5000; ++i) machine_->stop({StopReason::Kind::kRequested, 0, "device"});
    };
    machine_->run();
    pollfd event{read_.fd(), POLLIN, 0};
    bool reached = ::poll(&event, 1, 60'000) == 1;
    ending_ = true;
    ASSERT_TRUE(reached) << "the last vCPU does not read the device";
    machine_->halt_threads();
    EXPECT_EQ(machine_->cpus(), 0u);
    ASSERT_TRUE(machine_->stop_reason());
    EXPECT_EQ(machine_->stop_reason()->detail, "device");
    read_.consume();
    ending_ = false;
  }
}

TEST_F(VcpuTest, AHaltedVcpuIsParkedAndResumed) {
  boot({});
  machine_->run();
  for (int i = 0; i < 50; ++i) {
    machine_->pause();
    EXPECT_TRUE(machine_->paused());
    machine_->run();
  }
  EXPECT_FALSE(machine_->stop_reason());
}

}  // namespace
}  // namespace vmm
