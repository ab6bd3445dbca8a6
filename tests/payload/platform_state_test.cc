// All devices of a machine across a snapshot: sections, the device list, and the barrier under a
// guest that works its devices.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <chrono>
#include <cstring>
#include <stdexcept>
#include <thread>

#include "devices/platform.h"
#include "tests/payload/guest.h"
#include "tests/support/temporary_directory.h"
#include "tests/support/temporary_file.h"
#include "vmm/base/sections.h"
#include "vmm/layout.h"

namespace payload_test {
namespace {

using base::SectionReader;
using base::SectionWriter;
using devices::Platform;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// A machine that has not booted, with its devices.
struct Board {
  std::unique_ptr<vmm::Machine> machine;
  std::unique_ptr<Platform> platform;

  explicit Board(devices::PlatformConfig config) {
    auto made = vmm::Machine::create({.memory_bytes = 64 << 20, .cpus = 1});
    if (!made) throw std::runtime_error(made.error().text());
    machine = std::move(*made);
    auto devices = Platform::create(*machine, std::move(config));
    if (!devices) throw std::runtime_error(devices.error().text());
    platform = std::move(*devices);
    if (auto begun = platform->begin(); !begun) throw std::runtime_error(begun.error().text());
  }
  SectionWriter save() {
    SectionWriter writer;
    platform->freeze();
    platform->save(writer);
    platform->thaw();
    return writer;
  }
  base::Result<void> restore(SectionReader reader) {
    platform->freeze();
    TRY(platform->restore(reader));
    TRY(reader.finish());
    platform->thaw();
    return {};
  }
  std::string refusal(std::vector<SectionReader::Section> sections) {
    auto restored = restore(SectionReader(std::move(sections)));
    return restored ? "accepted" : restored.error().text();
  }
};

std::vector<SectionReader::Section> sections(const SectionWriter& writer) {
  std::vector<SectionReader::Section> all;
  for (size_t i = 0; i < writer.count(); ++i) {
    auto data = writer.data(i);
    all.push_back({std::string(writer.tag(i)), writer.version(i), {data.begin(), data.end()}});
  }
  return all;
}

std::vector<std::string> tags(const SectionWriter& writer) {
  std::vector<std::string> all;
  for (size_t i = 0; i < writer.count(); ++i) all.emplace_back(writer.tag(i));
  return all;
}

class PlatformStateTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (auto reason = cannot_run()) GTEST_SKIP() << *reason;
  }
  // Everything there is, but a network (its backends need what a host may not have).
  devices::PlatformConfig everything(const std::string& socket) {
    devices::PlatformConfig config;
    config.disks.push_back({.id = "disk0", .path = disk_.path(), .read_only = true, .serial = ""});
    config.rng = config.balloon = true;
    config.vsock = {.cid = 3, .path = directory_.path() + "/" + socket};
    config.console.emplace();
    config.console->output = base::Fd(::open("/dev/null", O_WRONLY | O_NONBLOCK | O_CLOEXEC));
    return config;
  }
  static devices::PlatformConfig with_rng() {
    devices::PlatformConfig config;
    config.rng = true;
    return config;
  }

  test::TemporaryDirectory directory_;
  test::TemporaryFile disk_{std::string(1 << 20, 'x')};
};

TEST_F(PlatformStateTest, EveryDeviceHasASectionThatRestoresToTheSameBytes) {
  Board saved(everything("a"));
  ASSERT_TRUE(saved.platform->set_balloon(16));
  std::array<uint8_t, 1> value{7};
  ASSERT_TRUE(saved.machine->pio().write(0x3F8 + 7, value));
  ASSERT_TRUE(saved.machine->pio().write(0x70, value));
  SectionWriter writer = saved.save();
  EXPECT_THAT(tags(writer), ElementsAre("devices", "serial", "rtc", "acpi-pm", "pci", "i8042",
                                        "pvpanic", "exit-port", "virtio:disk0", "virtio:rng",
                                        "virtio:console", "virtio:vsock", "virtio:balloon"));

  Board restored(everything("b"));
  auto done = restored.restore(SectionReader(sections(writer)));
  ASSERT_TRUE(done) << done.error().text();
  EXPECT_EQ(restored.platform->balloon()->target_mib(), 16u);
  ASSERT_TRUE(restored.machine->pio().read(0x3F8 + 7, value));
  EXPECT_EQ(value[0], 7);
  SectionWriter again = restored.save();
  ASSERT_EQ(tags(again), tags(writer));
  for (size_t i = 0; i < writer.count(); ++i) {
    if (writer.tag(i) == "acpi-pm") continue;  // its timer goes on
    EXPECT_TRUE(std::ranges::equal(writer.data(i), again.data(i))) << writer.tag(i);
  }
}

TEST_F(PlatformStateTest, OtherDevicesAreRefusedByName) {
  Board rng(with_rng());
  auto with_one = sections(rng.save());
  Board none(devices::PlatformConfig{});
  auto with_none = sections(none.save());
  Board balloon([] {
    devices::PlatformConfig config;
    config.balloon = true;
    return config;
  }());

  EXPECT_THAT(
      none.refusal(with_one),
      HasSubstr("the snapshot's device 1 is 'rng' (virtio type 4), this machine has only 0"));
  EXPECT_THAT(rng.refusal(with_none),
              HasSubstr("this machine has 'rng' (virtio type 4), which the snapshot has not"));
  EXPECT_THAT(balloon.refusal(with_one),
              HasSubstr("device 1 is 'rng' (virtio type 4), this machine's is 'balloon'"));
}

TEST_F(PlatformStateTest, SectionsThatAreMissingUnknownNewerOrDamagedAreRefusedByName) {
  Board saved(with_rng());
  const auto good = sections(saved.save());
  auto refusal = [&](auto change) {
    auto all = good;
    change(all);
    return Board(with_rng()).refusal(std::move(all));
  };
  EXPECT_EQ(refusal([](auto&) {}), "accepted");
  EXPECT_THAT(refusal([](auto& all) { all.push_back({"virtio:tape", 1, {}}); }),
              HasSubstr("'virtio:tape'"));
  for (size_t i = 0; i < good.size(); ++i) {
    const std::string& tag = good[i].tag;
    EXPECT_THAT(refusal([i](auto& all) { all[i].version = 3; }),
                HasSubstr("section '" + tag + "' has version 3"));
    EXPECT_THAT(refusal([i](auto& all) { all.erase(all.begin() + static_cast<int>(i)); }),
                HasSubstr("no section '" + tag + "'"));
    EXPECT_THAT(refusal([i](auto& all) { all[i].data.push_back({}); }),
                HasSubstr("section '" + tag + "' has 1 bytes too many"));
    if (good[i].data.empty()) continue;
    EXPECT_THAT(refusal([i](auto& all) { all[i].data.pop_back(); }),
                HasSubstr("section '" + tag + "' is too short"));
  }
}

// What the barrier promises: with the vCPUs out nothing of guest memory changes, however busy the
// devices were.
TEST_F(PlatformStateTest, NothingChangesBetweenFreezeAndThawUnderLoad) {
  auto made = Guest::create({.payload = "virtio",
                             .command_line = "mode=rng ops=1000000000",
                             .memory_bytes = 16 << 20,
                             .rng = true});
  ASSERT_TRUE(made) << made.error().text();
  Guest& guest = **made;
  vmm::Machine& machine = guest.machine();
  vmm::GuestMemory& memory = machine.memory();
  std::vector<uint64_t> marks(memory.size() / vmm::kPageSize / 64);
  auto all = [&] { return *memory.view(vmm::Gpa{0}, memory.size()); };
  machine.run();
  uint64_t marked = 0;
  for (int i = 0; i < 100; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    guest.platform().hold();
    machine.pause();
    guest.platform().freeze();
    std::ranges::fill(marks, 0);
    memory.take_dirty(0, marks);
    for (uint64_t word : marks) marked += static_cast<uint64_t>(std::popcount(word));
    std::vector<std::byte> before(all().begin(), all().end());
    SectionWriter first, second;
    guest.platform().save(first);
    std::this_thread::sleep_for(std::chrono::microseconds(300));
    guest.platform().save(second);
    EXPECT_EQ(std::memcmp(all().data(), before.data(), before.size()), 0);
    std::ranges::fill(marks, 0);
    memory.take_dirty(0, marks);
    for (uint64_t word : marks) ASSERT_EQ(word, 0u);
    for (size_t s = 0; s < first.count(); ++s) {
      if (first.tag(s) == "acpi-pm") continue;
      EXPECT_TRUE(std::ranges::equal(first.data(s), second.data(s))) << first.tag(s);
    }
    guest.platform().thaw();
    machine.run();
  }
  EXPECT_GT(marked, 0u) << "the device did nothing: the test shows nothing";
  EXPECT_FALSE(machine.stop_reason()) << guest.all_output();
}

// Level-triggered: between the reading of one chip and of the other it would be lost.
TEST_F(PlatformStateTest, ThePowerButtonWaitsForTheThaw) {
  Board board(devices::PlatformConfig{});
  auto pm = [&] {
    SectionWriter sections;
    board.platform->save(sections);
    for (size_t i = 0; i < sections.count(); ++i) {
      if (sections.tag(i) != "acpi-pm") continue;
      return base::Decoder(sections.data(i)).u16();  // PM1_STS
    }
    return uint16_t{0xFFFF};
  };
  constexpr uint16_t kPowerButton = 1 << 8;  // ACPI 4.8.4.1
  board.platform->freeze();
  board.platform->press_power_button();
  EXPECT_EQ(pm() & kPowerButton, 0);
  board.platform->thaw();
  board.platform->freeze();
  EXPECT_EQ(pm() & kPowerButton, kPowerButton);
  board.platform->thaw();
}

TEST_F(PlatformStateTest, ANewGenerationIsAnotherIdAndAnEvent) {
  Board board(devices::PlatformConfig{});
  using Id = std::array<uint8_t, 16>;
  auto id = [&] { return *board.machine->memory().load<Id>(vmm::layout::kGenerationId); };
  ASSERT_TRUE(board.platform->new_generation());
  Id first = id();
  std::array<uint8_t, 1> event{};
  ASSERT_TRUE(board.machine->pio().read(vmm::layout::kPortGpe0, event));
  EXPECT_EQ(event[0], 1 << vmm::layout::kGpeGeneration);
  ASSERT_TRUE(board.platform->new_generation());
  EXPECT_NE(id(), first);
}

TEST_F(PlatformStateTest, SavingAgainAllocatesNothing) {
  Board board(everything("a"));
  SectionWriter writer;
  board.platform->freeze();
  board.platform->save(writer);
  const std::byte* before = writer.data(0).data();
  writer.clear();
  board.platform->save(writer);
  EXPECT_EQ(writer.data(0).data(), before);
  board.platform->thaw();
}

}  // namespace
}  // namespace payload_test
