// Each virtio device across a snapshot: saved while it works, restored into a new one over the same
// guest memory, where it goes on as if nothing had been.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <set>

#include "devices/virtio/balloon.h"
#include "devices/virtio/block.h"
#include "devices/virtio/console.h"
#include "devices/virtio/file_disk.h"
#include "devices/virtio/net.h"
#include "devices/virtio/rng.h"
#include "devices/virtio/vsock.h"
#include "tests/support/socket_backend.h"
#include "tests/support/temporary_directory.h"
#include "tests/support/temporary_file.h"
#include "tests/support/virtio_machine.h"

namespace virtio {
namespace {

using ::testing::HasSubstr;
using testing_support::Cable;
using testing_support::PciDriver;
using testing_support::VirtioMachine;
using vmm::Gpa;

constexpr Gpa kData{0x80000};

class DeviceStateTest : public ::testing::Test {
 protected:
  std::unique_ptr<vmm::GuestMemory> memory_ = std::move(*vmm::GuestMemory::create(1 << 20));

  void put(Gpa gpa, std::string_view bytes) {
    ASSERT_TRUE(memory_->write(gpa, std::as_bytes(std::span(bytes))));
  }
  std::string get(Gpa gpa, size_t size) {
    auto view = *memory_->view(gpa, size);
    return {reinterpret_cast<const char*>(view.data()), size};
  }
  static std::vector<std::byte> own_state(const Device& device) {
    std::vector<std::byte> bytes;
    base::Encoder encoder(bytes);
    device.save(encoder);
    return bytes;
  }
  // What the device says to these bytes in place of its own.
  static std::string answer(Device& device, std::span<const std::byte> bytes) {
    base::Decoder decoder(bytes);
    auto restored = device.restore(decoder);
    if (decoder.ok() && !restored) return restored.error().text();
    auto finished = decoder.finish("it");
    return finished ? "accepted" : finished.error().text();
  }
  // None of its prefixes, and nothing longer, is its state.
  static void expect_whole_state_only(Device& device) {
    auto bytes = own_state(device);
    EXPECT_EQ(answer(device, bytes), "accepted");
    for (size_t size = 0; size < bytes.size(); ++size) {
      EXPECT_THAT(answer(device, std::span(bytes).first(size)), HasSubstr("too short")) << size;
    }
    bytes.push_back(std::byte{0});
    EXPECT_THAT(answer(device, bytes), HasSubstr("1 bytes too many"));
  }
};

// --- rng ---

TEST_F(DeviceStateTest, RngAnswersWhatWasAskedBeforeAndAfter) {
  auto saved = *Rng::create("rng"), restored = *Rng::create("rng");
  VirtioMachine from(*memory_, *saved), to(*memory_, *restored);
  from.start(0, true);
  from.queues[0].add(0, {}, {{kData, 32}});
  from.driver.kick(0);
  from.settle();
  ASSERT_EQ(from.queues[0].used_index(), 1);
  auto bytes = from.save();
  ASSERT_TRUE(to.restore(bytes));
  EXPECT_EQ(to.save_frozen(), bytes);
  from.queues[0].add(1, {}, {{kData + 64, 32}});  // its kick is lost
  to.wake();
  EXPECT_EQ(to.queues[0].used_index(), 2);
  EXPECT_EQ(to.queues[0].avail_event(), 2);  // it wants the next kick
  EXPECT_NE(get(kData + 64, 32), std::string(32, 0));
  expect_whole_state_only(*restored);
}

// --- console ---

struct Pipe {
  base::Fd read, write;
  Pipe() {
    int ends[2];
    if (::pipe2(ends, O_NONBLOCK | O_CLOEXEC) < 0) throw std::runtime_error("pipe");
    read = base::Fd(ends[0]);
    write = base::Fd(ends[1]);
    ::fcntl(write.get(), F_SETPIPE_SZ, 4096);
  }
  std::string take() {
    std::string all;
    char bytes[4096];
    for (ssize_t n; (n = ::read(read.get(), bytes, sizeof bytes)) > 0;) {
      all.append(bytes, static_cast<size_t>(n));
    }
    return all;
  }
};

TEST_F(DeviceStateTest, ConsoleOutputIsNeitherRepeatedNorLost) {
  Pipe first, second;
  auto saved = *Console::create("console", {}, std::move(first.write));
  auto restored = *Console::create("console", {}, std::move(second.write));
  VirtioMachine from(*memory_, *saved), to(*memory_, *restored);
  std::string text(10000, ' ');
  for (size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>('a' + i / 7 % 26);
  put(kData, text);
  from.start();
  from.queues[1].add(0, {{kData, 10000}}, {});
  from.driver.kick(1);
  from.settle();
  ASSERT_EQ(from.queues[1].used_index(), 0);  // the reader takes no more
  auto bytes = from.save();
  from.freeze();  // its further output is not of this machine
  std::string out = first.take();
  ASSERT_GT(out.size(), 0u);
  ASSERT_LT(out.size(), text.size());

  ASSERT_TRUE(to.restore(bytes));
  EXPECT_EQ(to.save_frozen(), bytes);
  to.wake();
  while (to.queues[1].used_index() == 0) {
    std::string more = second.take();
    out += more;
    to.settle();
    ASSERT_LE(out.size(), text.size());
  }
  out += second.take();
  EXPECT_EQ(out, text);
}

TEST_F(DeviceStateTest, ConsoleRefusesMoreWrittenThanARequestHas) {
  auto console = *Console::create("console", {}, base::Fd(::open("/dev/null", O_WRONLY)));
  expect_whole_state_only(*console);
  std::vector<std::byte> bytes(8, std::byte{1});
  EXPECT_THAT(answer(*console, bytes), HasSubstr("bytes written of a request"));
}

// --- net ---

TEST_F(DeviceStateTest, NetSendsNoFrameTwiceAndLosesOnlyWhatNobodyHadTaken) {
  Cable first, second;
  MacAddress mac{0x52, 0x54, 0, 9, 9, 9};
  Net saved("net0", {0x52, 0x54, 0, 1, 2, 3}, first.take_backend());
  Net restored("net0", mac, second.take_backend());
  VirtioMachine from(*memory_, saved), to(*memory_, restored);
  from.start(kNetMac);
  auto send = [&](VirtioMachine& machine, uint16_t slot) {
    std::string frame(12 + 60, static_cast<char>('0' + slot));
    std::memset(frame.data(), 0, 12);
    put(kData + slot * 128u, frame);
    machine.queues[1].add(slot, {{kData + slot * 128u, 72}}, {});
  };
  send(from, 0);
  from.driver.kick(1);
  from.settle();
  ASSERT_EQ(first.receive().size(), 60u);
  ASSERT_TRUE(first.send(std::vector<std::byte>(100)));  // it waits for a buffer
  from.settle();
  auto bytes = from.save();

  ASSERT_TRUE(to.restore(bytes));
  EXPECT_EQ(to.save_frozen(), bytes);
  send(from, 1);
  from.queues[0].add(0, {}, {{kData + 0x1000, 2048}});
  to.wake();
  auto sent = second.receive();
  ASSERT_EQ(sent.size(), 60u);
  EXPECT_EQ(sent[0], std::byte{'1'});
  EXPECT_TRUE(second.receive().empty());
  EXPECT_EQ(to.queues[0].used_index(), 0);
  ASSERT_TRUE(second.send(std::vector<std::byte>(80, std::byte{5})));
  while (to.queues[0].used_index() == 0) to.settle();
  EXPECT_EQ(to.queues[0].used(0).length, 92u);
  std::array<uint8_t, 6> shown;
  restored.read_config(0, shown);
  EXPECT_EQ(shown, mac) << "that of the machine it is in now";
}

TEST_F(DeviceStateTest, NetHasItsDriverAnnounceWhereItIsNow) {
  Cable first, second;
  Net saved("net0", {2, 0, 0, 0, 0, 1}, first.take_backend());
  Net restored("net0", {2, 0, 0, 0, 0, 1}, second.take_backend());
  VirtioMachine from(*memory_, saved), to(*memory_, restored);
  from.start(kNetMac | kNetStatus | kNetControlQueue | kNetGuestAnnounce);
  constexpr uint16_t kLinkUp = 1, kAnnounce = 2;
  auto status = [](VirtioMachine& machine) {
    return machine.driver.read<uint16_t>(machine.driver.structure[PciDriver::kDevice] + 6);
  };
  EXPECT_EQ(status(from), kLinkUp);
  ASSERT_TRUE(to.restore(from.save()));
  to.wake();
  EXPECT_EQ(to.signals(0), 1u);  // configuration changed
  EXPECT_EQ(status(to), kLinkUp | kAnnounce);
  auto command = [&](uint16_t slot, std::string_view words) {
    put(kData, words);
    put(kData + 64, "?");
    to.queues[2].add(slot, {{kData, static_cast<uint32_t>(words.size())}}, {{kData + 64, 1}});
    to.driver.kick(2);
    to.settle();
    return get(kData + 64, 1)[0];
  };
  EXPECT_EQ(command(0, std::string_view("\0\0\1", 3)), 1);  // promiscuous mode: not offered
  EXPECT_EQ(status(to), kLinkUp | kAnnounce);
  EXPECT_EQ(command(2, std::string_view("\3\0", 2)), 0);
  EXPECT_EQ(status(to), kLinkUp);
  EXPECT_EQ(to.queues[2].used_index(), 2);
  command(4, "\3");  // cut off
  EXPECT_TRUE(to.driver.status() & kStatusNeedsReset);
}

TEST_F(DeviceStateTest, NetAsksNoDriverThatDoesNotKnowHow) {
  Cable first, second;
  Net saved("net0", {2, 0, 0, 0, 0, 1}, first.take_backend());
  Net restored("net0", {2, 0, 0, 0, 0, 1}, second.take_backend());
  VirtioMachine from(*memory_, saved), to(*memory_, restored);
  from.start(kNetMac | kNetStatus);
  ASSERT_TRUE(to.restore(from.save()));
  to.wake();
  EXPECT_EQ(to.driver.read<uint16_t>(to.driver.structure[PciDriver::kDevice] + 6), 1);
}

TEST_F(DeviceStateTest, NetRefusesFeaturesOfAnotherBackend) {
  Cable plain, offloading(kNetCsum);
  Net net("net0", {2, 0, 0, 0, 0, 1}, plain.take_backend());
  expect_whole_state_only(net);

  Net with_checksums("net0", {2, 0, 0, 0, 0, 1}, offloading.take_backend());
  VirtioMachine from(*memory_, with_checksums), to(*memory_, net);
  from.start(kNetMac | kNetCsum);
  auto restored = to.restore(from.save());
  ASSERT_FALSE(restored);
  EXPECT_THAT(restored.error().text(), HasSubstr("features 0x1, which this device does not offer"));
}

// --- balloon ---

TEST_F(DeviceStateTest, BalloonKeepsTargetSizeAndTheStatisticsBuffer) {
  auto saved = *Balloon::create("balloon", {.guest_bytes = 1 << 20});
  auto restored = *Balloon::create("balloon", {.guest_bytes = 1 << 20});
  VirtioMachine from(*memory_, *saved), to(*memory_, *restored);
  from.start(1 << 1);
  struct [[gnu::packed]] {
    uint16_t tag = 4;
    uint64_t value = 12345;
  } statistic;
  ASSERT_TRUE(memory_->store(kData, statistic));
  from.queues[2].add(3, {{kData, 10}}, {});
  from.driver.kick(2);
  from.settle();
  ASSERT_EQ(from.queues[2].used_index(), 0);  // the device keeps it
  ASSERT_TRUE(saved->set_target(1));
  from.settle();
  from.driver.write<uint32_t>(from.driver.structure[PciDriver::kDevice] + 4, 256);
  from.driver.read<uint8_t>(from.driver.structure[PciDriver::kIsr]);
  auto bytes = from.save();

  ASSERT_TRUE(to.restore(bytes));
  EXPECT_EQ(to.save_frozen(), bytes);
  to.wake();
  EXPECT_EQ(restored->target_mib(), 1u);
  EXPECT_EQ(restored->actual_mib(), 1u);
  EXPECT_EQ(to.transport->locked([&] { return restored->statistics()[4]; }), 12345u);
  to.driver.read<uint8_t>(to.driver.structure[PciDriver::kIsr]);
  EXPECT_EQ(to.save(), bytes);  // it is held by the device itself now
  restored->request_statistics();
  to.settle();
  ASSERT_EQ(to.queues[2].used_index(), 1);
  EXPECT_EQ(to.queues[2].used(0).id, 3u);
}

TEST_F(DeviceStateTest, BalloonRefusesATargetBeyondTheGuest) {
  auto large = *Balloon::create("balloon", {.guest_bytes = 4 << 20});
  auto small = *Balloon::create("balloon", {.guest_bytes = 1 << 20});
  ASSERT_TRUE(large->set_target(4));
  EXPECT_THAT(answer(*small, own_state(*large)),
              HasSubstr("target of 1024 pages, the guest has 256"));
  expect_whole_state_only(*small);
}

// --- vsock ---

TEST_F(DeviceStateTest, VsockTellsTheGuestThatItsConnectionsAreGone) {
  test::TemporaryDirectory directory;
  auto saved = *Vsock::create("vsock", 42, directory.file("a"));
  auto restored = *Vsock::create("vsock", 43, directory.file("b"));
  VirtioMachine from(*memory_, *saved), to(*memory_, *restored);
  from.start();
  for (uint16_t i = 0; i < 4; ++i) from.queues[0].add(i, {}, {{kData + i * 0x1000u, 4096}});
  auto client = *base::connect_unix(directory.file("a"));
  ASSERT_EQ(::write(client.get(), "CONNECT 1024\n", 13), 13);
  while (from.queues[0].used_index() == 0) from.settle();
  auto asked = *memory_->load<VsockHeader>(kData);
  ASSERT_EQ(asked.op, kVsockRequest);
  from.freeze();  // for good: both machines have the same memory
  auto bytes = from.save_frozen();

  ASSERT_TRUE(to.restore(bytes));
  EXPECT_EQ(to.save_frozen(), bytes);
  to.wake();
  EXPECT_EQ(to.queues[2].used_index(), 0);  // no buffer yet: the reset waits for one
  auto again = to.save();
  put(kData + 0x8000, "\xFF\xFF\xFF\xFF");
  to.queues[2].add(0, {}, {{kData + 0x8000, 4}});
  to.driver.kick(2);
  to.settle();
  ASSERT_EQ(to.queues[2].used_index(), 1);
  EXPECT_EQ(*memory_->load<uint32_t>(kData + 0x8000), kVsockTransportReset);
  // The CID is the new machine's, and no port comes twice.
  EXPECT_EQ(to.driver.read<uint64_t>(to.driver.structure[PciDriver::kDevice]), 43u);
  auto second = *base::connect_unix(directory.file("b"));
  ASSERT_EQ(::write(second.get(), "CONNECT 1024\n", 13), 13);
  while (to.queues[0].used_index() < 2) to.settle();
  auto next = *memory_->load<VsockHeader>(kData + 0x1000);
  EXPECT_EQ(next.op, kVsockRequest);
  EXPECT_EQ(next.src_port, asked.src_port + 1);
}

TEST_F(DeviceStateTest, VsockRefusesAPortItNeverGivesOut) {
  test::TemporaryDirectory directory;
  auto vsock = *Vsock::create("vsock", 42, directory.file("a"));
  expect_whole_state_only(*vsock);
  std::vector<std::byte> bytes(4, std::byte{0});
  EXPECT_THAT(answer(*vsock, bytes), HasSubstr("host port 0"));
}

// --- block ---

std::unique_ptr<Block> disk_on(int fd, bool read_only, const std::string& serial) {
  auto disk = FileDisk::create(BlockFile::adopt(base::Fd(fd), 1 << 20, read_only));
  return Block::create(std::move(*disk), "disk0", serial);
}

TEST_F(DeviceStateTest, BlockIssuesAgainWhatWasInFlight) {
  // The first disk is a pipe that nobody writes to: reads of it do not come back.
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  auto saved = disk_on(ends[0], false, "mine");
  base::Fd nobody(ends[1]);  // closed before the disk, which waits for its reads
  std::string content(1 << 20, 'x');
  content.replace(512, 512, std::string(512, 'y'));
  test::TemporaryFile file{content};
  auto restored = *Block::create({.id = "disk0",
                                  .path = file.path(),
                                  .read_only = false,
                                  .serial = "",
                                  .access = BlockFile::Access::kBuffered});
  VirtioMachine from(*memory_, *saved), to(*memory_, *restored);
  from.start();
  auto read = [&](uint16_t slot, uint32_t length) {
    Gpa header = kData + slot * 0x1000u;
    put(header, std::string(16, 0) + "?");  // a read of sector 0; its status
    from.queues[0].add(static_cast<uint16_t>(3 * slot), {{header, 16}},
                       {{header + 0x200, length}, {header + 16, 1}});
  };
  read(0, 512);
  read(1, 1024);
  from.driver.kick(0);
  from.settle();
  auto bytes = from.save();
  EXPECT_EQ(from.transport->locked([&] { return saved->in_flight().size(); }), 2u);

  ASSERT_TRUE(to.restore(bytes));
  EXPECT_EQ(to.save_frozen(), bytes);
  read(2, 512);
  to.wake();
  while (to.queues[0].used_index() < 3) to.settle();
  std::set<uint32_t> heads;
  for (uint16_t i = 0; i < 3; ++i) heads.insert(to.queues[0].used(i).id);
  EXPECT_EQ(heads, (std::set<uint32_t>{0, 3, 6}));
  EXPECT_EQ(get(kData + 0x200, 512), std::string(512, 'x'));
  EXPECT_EQ(get(kData + 0x1200, 1024), std::string(512, 'x') + std::string(512, 'y'));
  for (uint32_t slot = 0; slot < 3; ++slot) EXPECT_EQ(get(kData + slot * 0x1000 + 16, 1)[0], 0);
  EXPECT_EQ(from.queues[0].used_index(), 3);
}

TEST_F(DeviceStateTest, BlockRefusesAnotherDisk) {
  test::TemporaryFile small{std::string(1 << 19, 0)}, large{std::string(1 << 20, 0)};
  auto open = [](const test::TemporaryFile& file, bool read_only) {
    return std::move(*Block::create({.id = "disk0",
                                     .path = file.path(),
                                     .read_only = read_only,
                                     .serial = "",
                                     .access = BlockFile::Access::kBuffered}));
  };
  auto one = open(large, true), two = open(small, true);
  expect_whole_state_only(*one);
  EXPECT_THAT(answer(*two, own_state(*one)), HasSubstr("has 2048 sectors, this one has 1024"));
  auto read_only = own_state(*two);
  two.reset();  // and with it the lock
  auto writable = open(small, false);
  EXPECT_THAT(answer(*writable, read_only), HasSubstr("is read-only, this one is not"));
}

TEST_F(DeviceStateTest, ChainsInFlightAreReadAgainAndMayBeAnything) {
  test::TemporaryFile file{std::string(1 << 20, 0)};
  auto make = [&] {
    return std::move(*Block::create({.id = "disk0",
                                     .path = file.path(),
                                     .read_only = true,
                                     .serial = "",
                                     .access = BlockFile::Access::kBuffered}));
  };
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  auto saved = disk_on(ends[0], true, "");
  base::Fd nobody(ends[1]);
  VirtioMachine from(*memory_, *saved);
  from.start();
  put(kData, std::string(16, 0));
  from.queues[0].add(0, {{kData, 16}}, {{kData + 0x200, 512}, {kData + 16, 1}});
  from.driver.kick(0);
  from.settle();
  auto bytes = from.save();
  auto device = make();
  VirtioMachine to(*memory_, *device);
  ASSERT_TRUE(to.restore(bytes));
  from.queues[0].set_descriptor(0, {1ull << 40, 16, 0, 0});  // not RAM
  to.wake();
  EXPECT_TRUE(to.driver.status() & kStatusNeedsReset);
  EXPECT_EQ(to.queues[0].used_index(), 0);
}

}  // namespace
}  // namespace virtio
