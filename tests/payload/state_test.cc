// A payload guest that is saved in the middle of its work and goes on in another machine.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "devices/platform.h"
#include "devices/serial_output.h"
#include "tests/payload/guest.h"
#include "vmm/machine_state.h"

namespace payload_test {
namespace {

using base::SectionReader;
using vmm::ClockPolicy;
using vmm::Machine;
using vmm::MachineState;

std::vector<SectionReader::Section> sections(const MachineState& state,
                                             base::SectionWriter writer) {
  state.encode(writer);
  std::vector<SectionReader::Section> all;
  for (size_t i = 0; i < writer.count(); ++i) {
    all.push_back({std::string(writer.tag(i)),
                   writer.version(i),
                   {writer.data(i).begin(), writer.data(i).end()}});
  }
  return all;
}

template <typename T>
std::string bytes(const T& value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}

class StateTest : public ::testing::Test {
 protected:
  std::unique_ptr<Guest> guest_;

  void SetUp() override {
    if (auto reason = cannot_run()) GTEST_SKIP() << *reason;
  }
  void make(const std::string& payload, const std::string& command_line, uint32_t cpus = 1) {
    auto guest = Guest::create({.payload = payload, .command_line = command_line, .cpus = cpus});
    ASSERT_TRUE(guest) << guest.error().text();
    guest_ = std::move(*guest);
  }
  // A snapshot, by hand.
  struct Snapshot {
    std::unique_ptr<MachineState> state;
    base::SectionWriter devices;
    std::vector<std::byte> memory;
    std::vector<SectionReader::Section> sections() const {
      return payload_test::sections(*state, devices);
    }
  };
  static Snapshot save(Machine& machine, devices::Platform& platform) {
    auto state = MachineState::prepare(machine);
    EXPECT_TRUE(state) << state.error().text();
    Snapshot snapshot{std::move(*state), {}, std::vector<std::byte>(machine.memory().size())};
    platform.hold();
    machine.hold();
    platform.freeze();
    machine.begin_tasks(snapshot.state->read_vcpu());
    machine.wait_tasks();
    auto read = snapshot.state->read_vm();
    if (read) read = snapshot.state->outcome();
    EXPECT_TRUE(read) << read.error().text();
    platform.save(snapshot.devices);
    std::memcpy(snapshot.memory.data(), machine.memory().host(0), snapshot.memory.size());
    platform.thaw();
    machine.release();
    return snapshot;
  }
  Snapshot save() { return save(guest_->machine(), guest_->platform()); }
  // Of a guest with two vCPUs, which does not go on.
  Snapshot save_two_that_work() {
    make("jitter", "size=1M rate=1000", 2);
    guest_->machine().run();
    guest_->wait_for_output("filled");
    Snapshot saved = save();
    guest_->machine().halt_threads();
    return saved;
  }
};

// A machine restored from sections and an image of memory, with the devices a payload needs.
struct Restored {
  std::unique_ptr<Machine> machine;
  std::unique_ptr<devices::Platform> platform;
  base::Fd console;
  std::unique_ptr<devices::SerialOutput> serial_output;

  ~Restored() {
    if (machine) machine->halt_threads();
  }
  static base::Result<std::unique_ptr<Restored>> create(
      std::vector<SectionReader::Section> sections, const std::vector<std::byte>& memory,
      ClockPolicy policy) {
    auto restored = std::make_unique<Restored>();
    SectionReader reader(std::move(sections));
    TRY_ASSIGN(auto cpuid, vmm::take_cpuid(reader));
    TRY_ASSIGN(restored->machine, Machine::create({.memory_bytes = memory.size(),
                                                   .cpus = static_cast<uint32_t>(cpuid.size()),
                                                   .cpuid = cpuid}));
    TRY_ASSIGN(restored->platform, devices::Platform::create(*restored->machine, {}));
    TRY(restored->platform->begin());
    restored->console = base::Fd(::memfd_create("console", MFD_CLOEXEC));
    TRY_ASSIGN(restored->serial_output,
               devices::SerialOutput::start(restored->platform->serial(), restored->console.get()));
    std::memcpy(restored->machine->memory().host(0), memory.data(), memory.size());
    TRY(restored->machine->load_state(reader));
    TRY(restored->machine->set_state(policy));
    restored->platform->freeze();
    TRY(restored->platform->restore(reader));
    restored->platform->thaw();
    TRY(reader.finish());
    return restored;
  }
  std::string output() {
    serial_output.reset();
    std::string text(1 << 16, '\0');
    ssize_t got = ::pread(console.get(), text.data(), text.size(), 0);
    text.resize(got < 0 ? 0 : static_cast<size_t>(got));
    return text;
  }
  void wait_for_stop() {
    pollfd stopped{machine->stopped().fd(), POLLIN, 0};
    ASSERT_EQ(::poll(&stopped, 1, 120'000), 1) << "the restored guest does not end";
  }
};

// KVM keeps what a guest under Hyper-V would see, for every guest. Two of it are counters that go
// on: HV_X64_MSR_VP_RUNTIME and HV_X64_MSR_TIME_REF_COUNT (Hyper-V's functional specification).
bool goes_on(uint32_t msr) { return msr == 0x40000010 || msr == 0x40000020; }

void expect_same_vcpu(const vmm::VcpuState& saved, const vmm::VcpuState& again) {
  EXPECT_EQ(bytes(saved.mp_state), bytes(again.mp_state));
  EXPECT_EQ(bytes(saved.regs), bytes(again.regs));
  EXPECT_EQ(bytes(saved.sregs), bytes(again.sregs));
  EXPECT_EQ(saved.xsave, again.xsave);
  EXPECT_EQ(bytes(saved.xcrs), bytes(again.xcrs));
  EXPECT_EQ(bytes(saved.debugregs), bytes(again.debugregs));
  EXPECT_EQ(bytes(saved.lapic), bytes(again.lapic));
  EXPECT_EQ(bytes(saved.events), bytes(again.events));
  EXPECT_EQ(saved.tsc_khz, again.tsc_khz);
  ASSERT_EQ(saved.msrs.count(), again.msrs.count());
  for (size_t i = 0; i < saved.msrs.count(); ++i) {
    EXPECT_EQ(saved.msrs.entries()[i].index, again.msrs.entries()[i].index);
    if (goes_on(saved.msrs.entries()[i].index)) continue;
    EXPECT_EQ(saved.msrs.entries()[i].data, again.msrs.entries()[i].data)
        << std::hex << saved.msrs.entries()[i].index;
  }
}

TEST_F(StateTest, AGuestGoesOnInAnotherMachine) {
  make("dirty", "size=8M verify=1 order=random progress=1");
  guest_->machine().run();
  guest_->wait_for_output("dirty: round=");
  auto saved = save();
  // Goes on itself, and must not be needed any more.
  guest_->type("q");
  ASSERT_TRUE(guest_->wait());
  EXPECT_EQ(guest_->machine().stop_reason()->status, 0) << guest_->output();
  guest_->machine().halt_threads();

  auto restored = Restored::create(saved.sections(), saved.memory, ClockPolicy::kContinue);
  ASSERT_TRUE(restored) << restored.error().text();
  EXPECT_TRUE((*restored)->machine->paused());
  auto again = save(*(*restored)->machine, *(*restored)->platform);
  expect_same_vcpu(saved.state->vcpus()[0], again.state->vcpus()[0]);
  for (size_t chip = 0; chip < 3; ++chip) {
    EXPECT_EQ(bytes(saved.state->irqchip().chips[chip]), bytes(again.state->irqchip().chips[chip]))
        << chip;
  }
  EXPECT_GE(again.state->clock().guest_ns, saved.state->clock().guest_ns);

  (*restored)->machine->run();
  (*restored)->platform->serial().push_input({reinterpret_cast<const uint8_t*>("q"), 1});
  (*restored)->wait_for_stop();
  auto reason = (*restored)->machine->stop_reason();
  std::string output = (*restored)->output();
  EXPECT_EQ(reason->kind, vmm::StopReason::Kind::kExit) << reason->detail;
  EXPECT_EQ(reason->status, 0) << output;
  EXPECT_EQ(field(output, "verified"), "yes") << output;
}

TEST_F(StateTest, TheTscGoesOnAsTheClockDoes) {
  make("jitter", "size=1M rate=1000", 2);
  // A KVM that runs guest programs on the host's processor directly cannot change their TSC.
  const vmm::KvmVcpu& first = guest_->machine().vcpus()[0]->kvm();
  uint64_t offset = *first.tsc_offset();
  ASSERT_TRUE(first.set_tsc_offset(offset + 12345));
  bool takes_offsets = *first.tsc_offset() == offset + 12345;
  ASSERT_TRUE(first.set_tsc_offset(offset));
  guest_->machine().run();
  guest_->wait_for_output("filled");
  auto saved = save();
  guest_->machine().halt_threads();
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  auto guest_tsc = [](const MachineState& state) {
    return state.clock().host_tsc + state.vcpus()[0].tsc_offset;
  };
  for (ClockPolicy policy : {ClockPolicy::kContinue, ClockPolicy::kCatchUp}) {
    auto restored = Restored::create(saved.sections(), saved.memory, policy);
    ASSERT_TRUE(restored) << restored.error().text();
    auto again = save(*(*restored)->machine, *(*restored)->platform);
    EXPECT_EQ(again.state->vcpus()[0].tsc_offset, again.state->vcpus()[1].tsc_offset);
    uint64_t clock_ns = again.state->clock().guest_ns - saved.state->clock().guest_ns;
    uint64_t real_ns = again.state->clock().realtime_ns - saved.state->clock().realtime_ns;
    double tsc_ns = static_cast<double>(guest_tsc(*again.state) - guest_tsc(*saved.state)) * 1e6 /
                    saved.state->vcpus()[0].tsc_khz;
    // Of the same instants by two clocks; 1 ms for their reads not being one.
    if (takes_offsets) {
      EXPECT_NEAR(tsc_ns, static_cast<double>(clock_ns), 1e6);
    }
    if (policy == ClockPolicy::kCatchUp) {
      EXPECT_NEAR(static_cast<double>(clock_ns), static_cast<double>(real_ns), 1e6);
    } else {
      EXPECT_LT(clock_ns + 100'000'000, real_ns);
    }
    (*restored)->machine->run();
    (*restored)->machine->pause();
    EXPECT_FALSE((*restored)->machine->stop_reason());
  }
}

// A restored machine that waits to be resumed: the guest has not been away, and not waited either.
TEST_F(StateTest, WhatItWaitsForItsFirstRunIsNotInItsClock) {
  auto saved = save_two_that_work();
  for (ClockPolicy policy : {ClockPolicy::kContinue, ClockPolicy::kCatchUp}) {
    auto restored = Restored::create(saved.sections(), saved.memory, policy);
    ASSERT_TRUE(restored) << restored.error().text();
    constexpr int64_t kWaitNs = 300'000'000;
    const auto begin = std::chrono::steady_clock::now();
    std::this_thread::sleep_for(std::chrono::nanoseconds(kWaitNs));
    (*restored)->machine->run();
    auto again = save(*(*restored)->machine, *(*restored)->platform);
    const std::chrono::nanoseconds real = std::chrono::steady_clock::now() - begin;
    const auto guest_ns =
        static_cast<int64_t>(again.state->clock().guest_ns - saved.state->clock().guest_ns);
    EXPECT_EQ(again.state->vcpus()[0].tsc_offset, again.state->vcpus()[1].tsc_offset);
    if (policy == ClockPolicy::kContinue) {
      EXPECT_LT(guest_ns + kWaitNs * 9 / 10, real.count());
    } else {
      EXPECT_GE(guest_ns, kWaitNs);
    }
    EXPECT_FALSE((*restored)->machine->stop_reason());
  }
}

TEST_F(StateTest, ProcessorsThatWaitAreSavedAsSuch) {
  make("hello", "", 3);
  auto saved = save();  // never ran: no thread has entered the guest
  ASSERT_EQ(saved.state->vcpus().size(), 3u);
  EXPECT_EQ(saved.state->vcpus()[0].mp_state.mp_state,
            static_cast<uint32_t>(KVM_MP_STATE_RUNNABLE));
  EXPECT_EQ(saved.state->vcpus()[1].mp_state.mp_state,
            static_cast<uint32_t>(KVM_MP_STATE_UNINITIALIZED));
  auto restored = Restored::create(saved.sections(), saved.memory, ClockPolicy::kContinue);
  ASSERT_TRUE(restored) << restored.error().text();
  auto again = save(*(*restored)->machine, *(*restored)->platform);
  for (size_t i = 0; i < 3; ++i) expect_same_vcpu(saved.state->vcpus()[i], again.state->vcpus()[i]);
  (*restored)->machine->run();
  (*restored)->wait_for_stop();
  EXPECT_EQ((*restored)->machine->stop_reason()->kind, vmm::StopReason::Kind::kExit);
  EXPECT_NE((*restored)->output().find("hello: memory_mib=63"), std::string::npos);
}

// Each damaged in its own way; never more than an error that names the section.
TEST_F(StateTest, DamagedSectionsAreRefusedByName) {
  make("hello", "");
  auto snapshot = save();
  auto refusal = [&](const std::string& tag,
                     const std::function<void(SectionReader::Section&)>& damage) {
    auto damaged = snapshot.sections();
    for (auto& section : damaged) {
      if (section.tag == tag) damage(section);
    }
    auto restored = Restored::create(damaged, snapshot.memory, ClockPolicy::kContinue);
    return restored ? std::string("accepted") : restored.error().text();
  };
  for (std::string tag : {"cpuid", "vcpu0", "irqchip", "clock"}) {
    auto named = ::testing::HasSubstr("'" + tag + "'");
    EXPECT_THAT(refusal(tag, [](auto& section) { section.data.pop_back(); }), named);
    EXPECT_THAT(refusal(tag, [](auto& section) { section.data.push_back({}); }), named);
    EXPECT_THAT(refusal(tag, [](auto& section) { ++section.version; }), named);
    EXPECT_THAT(refusal(tag, [](auto& section) { section.tag = "other"; }), named);
  }
  // What only KVM can judge: bits of CR4 that no processor has.
  constexpr size_t kCr4 = sizeof(kvm_mp_state) + sizeof(kvm_regs) + offsetof(kvm_sregs2, cr4);
  EXPECT_THAT(refusal("vcpu0", [](auto& s) { std::memset(s.data.data() + kCr4, 0xFF, 8); }),
              ::testing::StartsWith("section 'vcpu0': KVM_SET_SREGS2"));
}

TEST_F(StateTest, MoreOrFewerProcessorsThanSavedAreRefused) {
  make("hello", "", 2);
  auto machine =
      Machine::create({.memory_bytes = 1 << 20, .cpus = 3, .cpuid = guest_->machine().cpuid()});
  ASSERT_FALSE(machine);
  EXPECT_EQ(machine.error().text(), "the saved machine has 2 vCPUs, not 3");
}

TEST_F(StateTest, AFeatureThatTheHostLacksIsRefused) {
  make("hello", "");
  auto cpuid = guest_->machine().cpuid();
  for (kvm_cpuid_entry2& entry : cpuid[0]) {
    if (entry.function == 1) entry.ecx |= 1u << 5;  // VMX, which no guest here has
  }
  auto machine = Machine::create({.memory_bytes = 1 << 20, .cpus = 1, .cpuid = cpuid});
  ASSERT_FALSE(machine);
  EXPECT_NE(machine.error().text().find("lacks features that the guest uses: vmx;"),
            std::string::npos)
      << machine.error().text();
}

// A guest from a host whose TSC runs a little faster, which no KVM needs to scale; its next state
// is made ahead before that is known.
TEST_F(StateTest, TheNextStateHasTheFrequencyThatTheGuestWasGiven) {
  auto saved = save_two_that_work();
  const uint32_t khz = guest_->machine().host_tsc_khz() + 10;
  auto sections = saved.sections();
  for (size_t i = 0; i < 2; ++i) {
    vmm::VcpuState state = saved.state->vcpus()[i];
    EXPECT_EQ(state.tsc_khz, guest_->machine().host_tsc_khz());
    state.tsc_khz = khz;
    base::SectionWriter writer;
    state.encode(writer.begin("vcpu", 1));
    auto section =
        std::ranges::find(sections, "vcpu" + std::to_string(i), &SectionReader::Section::tag);
    ASSERT_NE(section, sections.end());
    section->data.assign(writer.data(0).begin(), writer.data(0).end());
  }
  SectionReader reader(std::move(sections));
  auto cpuid = vmm::take_cpuid(reader);
  ASSERT_TRUE(cpuid) << cpuid.error().text();
  auto machine = Machine::create({.memory_bytes = saved.memory.size(), .cpus = 2, .cpuid = *cpuid});
  ASSERT_TRUE(machine) << machine.error().text();
  auto next = MachineState::prepare(**machine);
  ASSERT_TRUE(next) << next.error().text();
  ASSERT_TRUE((*machine)->load_state(reader));
  ASSERT_TRUE((*machine)->set_state(ClockPolicy::kContinue));
  (*machine)->hold(&(*next)->read_vcpu());
  (*machine)->wait_tasks();
  ASSERT_TRUE((*next)->outcome());
  for (const auto& vcpu : (*machine)->vcpus()) EXPECT_EQ(vcpu->kvm().tsc_khz(), khz);
  for (const vmm::VcpuState& vcpu : (*next)->vcpus()) EXPECT_EQ(vcpu.tsc_khz, khz);
  (*machine)->release();
  (*machine)->halt_threads();
}

// A snapshot after the other of a guest that works, in one piece of memory.
TEST_F(StateTest, AStateIsUsedAgainAndAgain) {
  make("dirty", "size=4M verify=1", 2);
  guest_->machine().run();
  guest_->wait_for_output("tsc_khz=");
  auto state = MachineState::prepare(guest_->machine());
  ASSERT_TRUE(state) << state.error().text();
  base::SectionWriter writer;
  for (int i = 0; i < 300; ++i) {
    guest_->machine().hold(&(*state)->read_vcpu());
    guest_->machine().wait_tasks();
    ASSERT_TRUE((*state)->read_vm());
    ASSERT_TRUE((*state)->outcome());
    guest_->machine().release();
    writer.clear();
    (*state)->encode(writer);
    ASSERT_EQ(writer.count(), 5u);  // cpuid, vcpu0, vcpu1, irqchip, clock
  }
  guest_->type("q");
  ASSERT_TRUE(guest_->wait());
  EXPECT_EQ(field(guest_->all_output(), "verified"), "yes");
}

}  // namespace
}  // namespace payload_test
