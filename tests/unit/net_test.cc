#include "devices/virtio/net.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "tests/support/fake_transport.h"
#include "tests/support/socket_backend.h"

namespace virtio {
namespace {

using testing_support::Cable;
using testing_support::FakeTransport;
using vmm::Gpa;
using Bytes = std::vector<std::byte>;

constexpr Gpa kData{0x100000};
constexpr MacAddress kMac{0x52, 0x54, 0x00, 0x12, 0x34, 0x56};
constexpr uint16_t kRx = Net::kReceiveQueue, kTx = Net::kTransmitQueue;
constexpr size_t kHeader = 12;
constexpr uint64_t kOffloads = kNetCsum | kNetGuestCsum | kNetGuestTso4 | kNetHostTso4;

Bytes make_frame(size_t size, int seed = 1) {
  Bytes frame(size);
  for (size_t i = 0; i < size; ++i) {
    frame[i] = static_cast<std::byte>(static_cast<size_t>(seed) * 37 + i * 11 + i / 256);
  }
  return frame;
}

Bytes operator+(Bytes left, const Bytes& right) {
  left.insert(left.end(), right.begin(), right.end());
  return left;
}

struct NetTest : ::testing::Test {
  Cable cable_;
  std::unique_ptr<Net> net_;
  std::unique_ptr<FakeTransport> transport_;

  void start(uint64_t without_features = 0, uint64_t offloads = 0) {
    transport_.reset();
    cable_ = Cable(offloads);
    net_ = std::make_unique<Net>("net0", kMac, cable_.take_backend());
    transport_ = std::make_unique<FakeTransport>(*net_);
    ASSERT_TRUE(transport_->activate(without_features));
  }
  Bytes bytes_at(Gpa gpa, size_t size) {
    auto view = *transport_->memory().view(gpa, size);
    return {view.begin(), view.end()};
  }
  void put(Gpa gpa, const Bytes& bytes) { ASSERT_TRUE(transport_->memory().write(gpa, bytes)); }
  void forget_dirty() {
    std::vector<uint64_t> sink(1024);
    transport_->memory().take_dirty(0, sink);
  }
  bool dirty(Gpa gpa) { return transport_->memory().is_dirty(gpa.gfn()); }
  auto& rx() { return transport_->driver(kRx); }
  auto& tx() { return transport_->driver(kTx); }
  // Queues `frame` behind an empty header, in one buffer, and kicks.
  void send(uint16_t index, const Bytes& frame, const Bytes& header = Bytes(kHeader)) {
    Gpa gpa = kData + 0x10000u * index;
    put(gpa, header + frame);
    tx().add(index, {{gpa, static_cast<uint32_t>(header.size() + frame.size())}}, {});
    transport_->kick(kTx);
  }
};

TEST_F(NetTest, ConfigurationHasTheMacAndALink) {
  start();
  std::array<uint8_t, 12> config;
  net_->read_config(0, config);
  EXPECT_TRUE(std::equal(kMac.begin(), kMac.end(), config.begin()));
  EXPECT_EQ(config[6], 1);  // link up
  EXPECT_EQ(config[8], 1);  // one pair of queues
  std::array<uint8_t, 2> past{0xFF, 0xFF};
  net_->read_config(12, past);
  EXPECT_EQ(past, (std::array<uint8_t, 2>{}));
  EXPECT_FALSE(net_->features() & kNetMtu);

  Cable cable;
  Net large("net1", kMac, cable.take_backend(), 9000);
  EXPECT_TRUE(large.features() & kNetMtu);
  large.read_config(10, past);
  EXPECT_EQ(past[0] | past[1] << 8, 9000);
}

TEST_F(NetTest, ReceivesAFrameIntoTwoBuffersOfAChain) {
  start();
  rx().add(3, {}, {{kData, 20}, {kData + 0x2000, 2000}});
  forget_dirty();
  Bytes frame = make_frame(1514);
  ASSERT_TRUE(cable_.send(frame));
  ASSERT_TRUE(transport_->poll());
  ASSERT_EQ(rx().used_index(), 1);
  EXPECT_EQ(rx().used(0).id, 3u);
  EXPECT_EQ(rx().used(0).length, kHeader + 1514);
  EXPECT_EQ(transport_->interrupts(kRx), 1);
  Bytes header(kHeader);
  header[10] = std::byte{1};  // num_buffers
  EXPECT_EQ(bytes_at(kData, kHeader), header);
  EXPECT_EQ(bytes_at(kData + kHeader, 8) + bytes_at(kData + 0x2000, 1506), frame);
  EXPECT_EQ(bytes_at(kData + 0x2000 + 1506, 8), Bytes(8));  // nothing behind the frame
  EXPECT_TRUE(dirty(kData));
  EXPECT_FALSE(dirty(kData + 0x1000));
  EXPECT_TRUE(dirty(kData + 0x2000));
  EXPECT_EQ(net_->counters().received_frames, 1u);
  EXPECT_EQ(net_->counters().received_bytes, 1514u);
}

TEST_F(NetTest, SpreadsAFrameOverSeveralChains) {
  start();
  for (uint16_t i = 0; i < 4; ++i) rx().add(i, {}, {{kData + 0x1000u * i, 600}});
  Bytes frame = make_frame(1514);
  ASSERT_TRUE(cable_.send(frame));
  ASSERT_TRUE(transport_->poll());
  ASSERT_EQ(rx().used_index(), 3);
  EXPECT_EQ(bytes_at(kData + 10, 1)[0], std::byte{3});  // num_buffers
  EXPECT_EQ(rx().used(0).length, 600u);
  EXPECT_EQ(rx().used(1).length, 600u);
  EXPECT_EQ(rx().used(2).length, kHeader + 1514 - 1200);
  EXPECT_EQ(bytes_at(kData + kHeader, 588) + bytes_at(kData + 0x1000, 600) +
                bytes_at(kData + 0x2000, 326),
            frame);
}

TEST_F(NetTest, WaitsForBuffersAndKeepsTheFrame) {
  start();
  Bytes first = make_frame(300, 1), second = make_frame(400, 2);
  ASSERT_TRUE(cable_.send(first));
  ASSERT_TRUE(cable_.send(second));
  ASSERT_TRUE(transport_->poll());
  EXPECT_FALSE(transport_->poll(0));  // it no longer looks at the cable
  EXPECT_EQ(rx().used_flags(), 0);    // and wants a kick
  rx().add(0, {}, {{kData, 2000}});
  rx().add(1, {}, {{kData + 0x1000, 2000}});
  transport_->kick(kRx);
  ASSERT_EQ(rx().used_index(), 2);
  EXPECT_EQ(bytes_at(kData + kHeader, 300), first);
  EXPECT_EQ(bytes_at(kData + 0x1000 + kHeader, 400), second);
  EXPECT_EQ(rx().used_flags(), 1);
  EXPECT_EQ(net_->counters().received_dropped, 0u);
}

TEST_F(NetTest, WaitsForTheRestOfTheBuffersAFrameNeeds) {
  start();
  rx().add(0, {}, {{kData, 600}});
  Bytes frame = make_frame(1000);
  ASSERT_TRUE(cable_.send(frame));
  ASSERT_TRUE(transport_->poll());
  EXPECT_EQ(rx().used_index(), 0);
  rx().add(1, {}, {{kData + 0x1000, 600}});
  transport_->kick(kRx);
  ASSERT_EQ(rx().used_index(), 2);
  EXPECT_EQ(bytes_at(kData + kHeader, 588) + bytes_at(kData + 0x1000, 412), frame);
}

TEST_F(NetTest, DropsAFrameThatNeverFits) {
  start(kNetMergeableBuffers);
  rx().add(0, {}, {{kData, 1000}});
  ASSERT_TRUE(cable_.send(make_frame(989)));
  ASSERT_TRUE(cable_.send(make_frame(988, 2)));
  ASSERT_TRUE(transport_->poll());
  ASSERT_EQ(rx().used_index(), 1);
  EXPECT_EQ(bytes_at(kData + kHeader, 988), make_frame(988, 2));
  EXPECT_EQ(bytes_at(kData + 10, 1)[0], std::byte{1});
  EXPECT_EQ(net_->counters().received_dropped, 1u);
}

TEST_F(NetTest, DropsAFrameLargerThanTheWholeQueue) {
  start();
  for (uint16_t i = 0; i < 16; ++i) rx().add(i, {}, {{kData + 0x1000u * i, 64}});
  ASSERT_TRUE(cable_.send(make_frame(2000)));
  ASSERT_TRUE(cable_.send(make_frame(60, 2)));
  ASSERT_TRUE(transport_->poll());
  EXPECT_EQ(net_->counters().received_dropped, 1u);
  ASSERT_EQ(rx().used_index(), 2);
  EXPECT_EQ(bytes_at(kData + kHeader, 52) + bytes_at(kData + 0x1000, 8), make_frame(60, 2));
}

TEST_F(NetTest, DropsFramesTooShortAndTooLongForEthernet) {
  start();
  rx().add(0, {}, {{kData, 0x20000}});
  ASSERT_TRUE(cable_.send(make_frame(13)));
  ASSERT_TRUE(cable_.send(make_frame(Net::kMaxFrameBytes + 1)));
  ASSERT_TRUE(cable_.send(make_frame(Net::kMaxFrameBytes, 3)));
  ASSERT_TRUE(transport_->poll());
  EXPECT_EQ(net_->counters().received_dropped, 2u);
  ASSERT_EQ(rx().used_index(), 1);
  EXPECT_EQ(bytes_at(kData + kHeader, Net::kMaxFrameBytes), make_frame(Net::kMaxFrameBytes, 3));
}

TEST_F(NetTest, AReceiveBufferWithoutRoomForTheHeaderStopsTheDevice) {
  start();
  rx().add(0, {}, {{kData, 11}});
  ASSERT_TRUE(cable_.send(make_frame(60)));
  ASSERT_TRUE(transport_->poll());
  ASSERT_TRUE(transport_->failure());
  EXPECT_EQ(*transport_->failure(), "receive buffer of 11 bytes has no room for the header");
  EXPECT_EQ(bytes_at(kData, 16), Bytes(16));
  EXPECT_EQ(rx().used_index(), 0);
}

// More frames than one turn moves, through buffers that are given back as they are used.
TEST_F(NetTest, ALongBurstArrivesTurnByTurnInOrder) {
  start();
  constexpr int kFrames = Net::kTurnFrames + 36;
  for (uint16_t i = 0; i < 16; ++i) rx().add(i, {}, {{kData + 0x1000u * i, 2000}});
  for (int i = 0; i < kFrames; ++i) ASSERT_TRUE(cable_.send(make_frame(100, i)));
  uint16_t seen = 0;
  while (seen < kFrames) {
    transport_->poll(0);
    ASSERT_NE(rx().used_index(), seen);
    for (; seen != rx().used_index(); ++seen) {
      Gpa buffer = kData + 0x1000u * (seen % 16);
      ASSERT_EQ(bytes_at(buffer + kHeader, 100), make_frame(100, seen));
      rx().add(seen % 16, {}, {{buffer, 2000}});
    }
    transport_->kick(kRx);
  }
}

TEST_F(NetTest, SendsAFrameFromSeveralBuffersWithoutItsHeader) {
  start();
  Bytes frame = make_frame(1514);
  // The header itself is split, and its second part has the frame's beginning behind it.
  Bytes all = Bytes(kHeader) + frame;
  put(kData, Bytes(all.begin(), all.begin() + 5));
  put(kData + 0x1000, Bytes(all.begin() + 5, all.begin() + 100));
  put(kData + 0x2000, Bytes(all.begin() + 100, all.end()));
  tx().add(2, {{kData, 5}, {kData + 0x1000, 95}, {kData + 0x2000, 1426}}, {});
  transport_->kick(kTx);
  EXPECT_EQ(cable_.receive(), frame);
  ASSERT_EQ(tx().used_index(), 1);
  EXPECT_EQ(tx().used(0).id, 2u);
  EXPECT_EQ(tx().used(0).length, 0u);
  EXPECT_EQ(transport_->interrupts(kTx), 1);
  EXPECT_EQ(net_->counters().sent_frames, 1u);
  EXPECT_EQ(net_->counters().sent_bytes, 1514u);
}

TEST_F(NetTest, KeepsFramesWhileTheCableIsFull) {
  start();
  std::vector<Bytes> sent;
  // Fill the socket first, from the device's side.
  uint16_t index = 0;
  while (tx().used_index() == static_cast<uint16_t>(sent.size())) {
    ASSERT_LT(sent.size(), 10000u);
    sent.push_back(make_frame(1000, static_cast<int>(sent.size())));
    send(index++ % 16, sent.back());
  }
  EXPECT_FALSE(transport_->poll(0));  // the last frame waits, nothing spins
  EXPECT_FALSE(transport_->failure());
  for (size_t i = 0; i < sent.size(); ++i) {
    if (i + 1 == sent.size()) {
      ASSERT_TRUE(transport_->poll());
      EXPECT_EQ(tx().used_index(), static_cast<uint16_t>(sent.size()));
    }
    ASSERT_EQ(cable_.receive(), sent[i]) << i;
  }
  EXPECT_FALSE(transport_->poll(0));  // it no longer waits for room
  EXPECT_EQ(net_->counters().sent_dropped, 0u);
}

TEST_F(NetTest, DropsFramesThatAreNoEthernet) {
  start();
  send(0, make_frame(13));
  send(1, make_frame(0));
  // Many descriptors over the same memory make a frame of any length.
  tx().add(2, {{kData, 0x80000}, {kData, 0x80000}}, {});
  transport_->kick(kTx);
  EXPECT_EQ(tx().used_index(), 3);
  EXPECT_EQ(cable_.receive(), Bytes());
  EXPECT_EQ(net_->counters().sent_dropped, 3u);
  EXPECT_EQ(net_->counters().sent_frames, 0u);
  send(3, make_frame(14));
  EXPECT_EQ(cable_.receive(), make_frame(14));
}

TEST_F(NetTest, AFrameWithoutAHeaderStopsTheDevice) {
  start();
  tx().add(0, {{kData, 11}}, {});
  transport_->kick(kTx);
  ASSERT_TRUE(transport_->failure());
  EXPECT_EQ(*transport_->failure(), "frame to send of 11 bytes has no header");

  start();
  tx().add(0, {}, {{kData, 100}});  // a writable buffer is nothing to send
  transport_->kick(kTx);
  EXPECT_TRUE(transport_->failure());
  EXPECT_EQ(cable_.receive(), Bytes());
}

TEST_F(NetTest, WithoutOffloadsAHeaderThatAsksForOneIsRefused) {
  start();
  Bytes header(kHeader);
  header[0] = std::byte{1};  // needs a checksum
  send(0, make_frame(60), header);
  header[0] = std::byte{0};
  header[1] = std::byte{1};  // TCPv4 segmentation
  send(1, make_frame(60), header);
  EXPECT_EQ(net_->counters().sent_dropped, 2u);
  EXPECT_EQ(cable_.receive(), Bytes());
}

TEST_F(NetTest, OffloadHeadersTravelWithTheFrame) {
  start(0, kOffloads);
  EXPECT_EQ(cable_.device_side().used_offloads(), kOffloads);
  Bytes header(kHeader);
  header[0] = std::byte{1};
  header[1] = std::byte{1};
  header[4] = std::byte{0xB4};
  send(0, make_frame(3000), header);
  EXPECT_EQ(cable_.receive(), header + make_frame(3000));
  header[1] = std::byte{4};  // TCPv6: not offered
  send(1, make_frame(3000), header);
  EXPECT_EQ(net_->counters().sent_dropped, 1u);

  rx().add(0, {}, {{kData, 2000}});
  rx().add(1, {}, {{kData + 0x1000, 2000}});
  header[1] = std::byte{1};
  ASSERT_TRUE(cable_.send(header + make_frame(3000, 2)));
  ASSERT_TRUE(transport_->poll());
  ASSERT_EQ(rx().used_index(), 2);
  header[10] = std::byte{2};
  EXPECT_EQ(bytes_at(kData, 2000) + bytes_at(kData + 0x1000, 1012), header + make_frame(3000, 2));
  EXPECT_EQ(net_->counters().received_bytes, 3000u);
}

TEST_F(NetTest, ADriverWithoutOffloadsGetsNoFlags) {
  start(kOffloads, kOffloads);
  EXPECT_EQ(cable_.device_side().used_offloads(), 0u);
  rx().add(0, {}, {{kData, 2000}});
  Bytes header(kHeader);
  header[0] = std::byte{2};  // data valid
  ASSERT_TRUE(cable_.send(header + make_frame(60)));
  ASSERT_TRUE(transport_->poll());
  EXPECT_EQ(bytes_at(kData, 1)[0], std::byte{0});
}

TEST_F(NetTest, ALostLinkIsReportedAfterTheLastFrame) {
  start();
  rx().add(0, {}, {{kData, 2000}});
  rx().add(1, {}, {{kData + 0x1000, 2000}});
  ASSERT_TRUE(cable_.send(make_frame(60)));
  cable_.unplug();
  while (transport_->poll(0)) {
  }
  EXPECT_EQ(rx().used_index(), 1);
  EXPECT_EQ(bytes_at(kData + kHeader, 60), make_frame(60));
  EXPECT_EQ(transport_->config_changes(), 1);
  EXPECT_EQ(transport_->watches(), 0u);
  std::array<uint8_t, 2> status;
  net_->read_config(6, status);
  EXPECT_EQ(status[0], 0);
  send(0, make_frame(60));
  EXPECT_FALSE(transport_->failure());
  EXPECT_EQ(tx().used_index(), 0);
  EXPECT_TRUE(transport_->reset_device());
}

TEST_F(NetTest, ResetForgetsTheFrameThatWaited) {
  start();
  ASSERT_TRUE(cable_.send(make_frame(60, 1)));
  ASSERT_TRUE(transport_->poll());
  ASSERT_TRUE(transport_->reset_device());
  EXPECT_EQ(transport_->watches(), 0u);
  ASSERT_TRUE(transport_->activate());
  rx().add(0, {}, {{kData, 2000}});
  ASSERT_TRUE(cable_.send(make_frame(60, 2)));
  ASSERT_TRUE(transport_->poll());
  ASSERT_EQ(rx().used_index(), 1);
  EXPECT_EQ(bytes_at(kData + kHeader, 60), make_frame(60, 2));
}

}  // namespace
}  // namespace virtio
