// A vsock device against a guest that breaks the rules, and against its own limits.
#include <sys/resource.h>

#include "devices/virtio/vsock.h"
#include "tests/support/vsock_fixture.h"

namespace virtio {
namespace {

using testing_support::VsockFixture;
class VsockHostileTest : public VsockFixture {};

TEST_F(VsockHostileTest, ResetsWhatNobodyListensTo) {
  start();
  guest_->send(guest_->header(kVsockRequest, 99, kGuestPort));
  expect_reset(99, kGuestPort);
  for (VsockOp op : {kVsockResponse, kVsockReadWrite, kVsockShutdown, kVsockCreditUpdate,
                     kVsockCreditRequest, VsockOp{0}, VsockOp{77}}) {
    guest_->send(guest_->header(op, 5, 6));
    expect_reset(5, 6);
  }
  guest_->send(guest_->header(kVsockReset, 5, 6));
  expect_nothing();  // a reset is never answered
}

TEST_F(VsockHostileTest, ResetsForeignAddressesAndTypes) {
  start();
  Stream stream = from_guest();
  auto header = guest_->header(kVsockRequest, 1, 2);
  header.dst_cid = 5;
  guest_->send(header);
  auto packet = guest_->next();
  ASSERT_TRUE(packet);
  EXPECT_EQ(packet->header.op, kVsockReset);
  EXPECT_EQ(packet->header.src_cid, 5u);

  header = to(stream, kVsockReadWrite);
  header.src_cid = kCid + 1;
  guest_->write(header, "forged");
  expect_reset(kHostPort, kGuestPort);
  header = to(stream, kVsockReadWrite);
  header.type = 2;  // SEQPACKET, not offered
  guest_->write(header, "message");
  packet = guest_->next();
  ASSERT_TRUE(packet);
  EXPECT_EQ(packet->header.op, kVsockReset);
  EXPECT_EQ(packet->header.type, 2);

  EXPECT_EQ(hear(stream.host), "");  // nothing got through, the stream lives
  guest_->write(to(stream, kVsockReadWrite), "good");
  EXPECT_EQ(hear(stream.host), "good");
}

TEST_F(VsockHostileTest, ResetsAStreamForABadPacket) {
  start();
  struct Case {
    const char* what;
    VsockOp op;
    uint32_t length;
  } cases[] = {
      {"longer than its buffer", kVsockReadWrite, 5},
      {"length near 2^32", kVsockReadWrite, 0xFFFFFFFF},
      {"unknown op", VsockOp{8}, 0},
      {"op 0", VsockOp{0}, 0},
      {"second request", kVsockRequest, 0},
      {"response to nothing", kVsockResponse, 0},
  };
  for (const Case& bad : cases) {
    Stream stream = from_guest();
    auto header = to(stream, bad.op);
    header.length = bad.length;
    guest_->send(header, "four");
    expect_reset(kHostPort, kGuestPort);
    EXPECT_EQ(hear(stream.host), "<end>") << bad.what;
    EXPECT_EQ(device_->connections(), 0u) << bad.what;
  }
}

TEST_F(VsockHostileTest, ResetsAGuestThatAnswersOtherThanYesOrNo) {
  start();
  base::Fd client = connect("CONNECT 1024\n");
  uint32_t port = expect(kVsockRequest).header.src_port;
  guest_->write(guest_->header(kVsockReadWrite, port, 1024), "too soon");
  expect_reset(port, 1024);
  EXPECT_EQ(hear(client), "<end>");
}

TEST_F(VsockHostileTest, ResetsDataBehindAShutdown) {
  start();
  Stream stream = from_guest();
  auto half = to(stream, kVsockShutdown);
  half.flags = kVsockNoSend | 0xFFFFFF00;  // unknown flags are nothing
  guest_->send(half);
  expect_nothing();
  guest_->write(to(stream, kVsockReadWrite), "one more thing");
  expect_reset(kHostPort, kGuestPort);
  EXPECT_EQ(hear(stream.host), "<end>");
}

TEST_F(VsockHostileTest, ResetsAGuestOverItsCredit) {
  start();
  Stream stream = from_guest();
  std::string piece(60000, 'x');
  // The host reads nothing: the device holds kVsockBuffer, the socket what it takes.
  bool reset = false;
  for (int sent = 0; sent < 200 && !reset; ++sent) {
    guest_->write(to(stream, kVsockReadWrite), piece);
    auto packet = guest_->next();
    reset = packet && packet->header.op == kVsockReset;
  }
  EXPECT_TRUE(reset);
  EXPECT_EQ(device_->connections(), 0u);
}

TEST_F(VsockHostileTest, FailsWithoutAWholeHeader) {
  start();
  transport_->driver(Vsock::kTransmit).add(0, {{vmm::Gpa{0x300000}, 43}}, {});
  transport_->kick(Vsock::kTransmit);
  ASSERT_TRUE(transport_->failure());
  EXPECT_NE(transport_->failure()->find("whole header"), std::string::npos);
  EXPECT_TRUE(transport_->reset_device());
}

TEST_F(VsockHostileTest, FailsOnAReceiveBufferWithoutRoom) {
  for (uint32_t size : {43u, 0u}) {
    SCOPED_TRACE(size);
    transport_ = std::make_unique<testing_support::FakeTransport>(*device_);
    guest_ = std::make_unique<testing_support::VsockGuest>(*transport_, kCid);
    start(1, size);
    guest_->send(guest_->header(kVsockRequest, 99, 1));
    ASSERT_TRUE(transport_->failure());
    EXPECT_NE(transport_->failure()->find("no room"), std::string::npos);
    EXPECT_TRUE(transport_->reset_device());
  }
}

TEST_F(VsockHostileTest, AnswersAreBoundedAndNoneIsLost) {
  start(0);
  constexpr uint32_t kPackets = 1000;
  uint32_t sent = 0;
  // The guest takes no answers: its packets wait at last, and its queue fills up.
  for (; sent < kPackets; ++sent) {
    guest_->send(guest_->header(kVsockRequest, 99, sent));
    if (transport_->driver(Vsock::kTransmit).used_index() <= sent) break;
  }
  EXPECT_EQ(sent, Vsock::kMaxResets);
  guest_->post(16);
  transport_->kick(Vsock::kReceive);
  uint32_t answers = 0;
  for (int turns = 0; turns < 100; ++turns) {
    for (auto packet = guest_->next(); packet; packet = guest_->next()) {
      EXPECT_EQ(packet->header.dst_port, answers);
      ++answers;
    }
    transport_->kick(Vsock::kReceive);
  }
  EXPECT_EQ(answers, sent + 1);
}

TEST_F(VsockHostileTest, ConnectionsAreBounded) {
  rlimit limit{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &limit), 0);
  rlimit before = limit;
  limit.rlim_cur = std::min<rlim_t>(4096, limit.rlim_max);
  if (limit.rlim_cur < 2200) GTEST_SKIP() << "needs 2200 descriptors, see ulimit -Hn";
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &limit), 0);
  start();
  std::vector<base::Fd> ends;
  for (uint32_t i = 0; i < Vsock::kMaxConnections - 1; ++i) {
    ends.push_back(from_guest(i).host);
  }
  base::Fd last = connect("");
  EXPECT_EQ(device_->connections(), Vsock::kMaxConnections);
  guest_->send(guest_->header(kVsockRequest, kHostPort, 5000));
  expect_reset(kHostPort, 5000);
  base::Fd refused = connect("CONNECT 1\n");
  char byte;
  EXPECT_LE(::recv(refused.get(), &byte, 1, MSG_DONTWAIT), 0);
  EXPECT_NE(errno, EAGAIN);
  // One that ends makes room.
  guest_->send(guest_->header(kVsockReset, kHostPort, 0));
  from_guest(5000);
  ::setrlimit(RLIMIT_NOFILE, &before);
}

TEST_F(VsockHostileTest, SurvivesALackOfDescriptors) {
  start();
  // Connected first: the client's end needs a descriptor as well.
  base::Fd client = *base::connect_unix(path_);
  rlimit before{}, none{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  int highest = ::dup(client.get());
  ::close(highest);
  none = before;
  none.rlim_cur = static_cast<rlim_t>(highest);
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &none), 0);
  settle();  // would stay ready for ever if the client were left there
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_EQ(hear(client), "<end>");
  from_host();
}

}  // namespace
}  // namespace virtio
