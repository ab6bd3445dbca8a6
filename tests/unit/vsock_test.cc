#include "devices/virtio/vsock.h"

#include "tests/support/vsock_fixture.h"
#include "vmm/base/endian.h"

namespace virtio {
namespace {

using testing_support::VsockFixture;
class VsockTest : public VsockFixture {};

// Bytes that show where they belong.
std::string pattern(size_t size) {
  std::string bytes(size, 0);
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<char>(i * 131 + i / 251);
  return bytes;
}

TEST_F(VsockTest, ShowsItsCid) {
  std::array<uint8_t, 12> config;
  device_->read_config(0, config);
  EXPECT_EQ(base::load_le<uint64_t>(config), kCid);
  EXPECT_EQ(base::load_le<uint32_t>(config, 8), 0u);
}

TEST_F(VsockTest, RefusesBadCidsAndPaths) {
  for (uint64_t cid : {uint64_t{0}, uint64_t{2}, uint64_t{UINT32_MAX}, uint64_t{1} << 32}) {
    EXPECT_FALSE(Vsock::create("vsock", cid, path_ + "x")) << cid;
  }
  EXPECT_FALSE(Vsock::create("vsock", 3, path_ + std::string(100 - path_.size(), 'x')));
  EXPECT_FALSE(Vsock::create("vsock", 3, path_));  // in use by this device
}

TEST_F(VsockTest, HostReachesAGuestPort) {
  start();
  base::Fd client = connect("CONNECT 1024\n");
  auto request = expect(kVsockRequest);
  EXPECT_EQ(request.header.dst_port, 1024u);
  EXPECT_EQ(request.header.buf_alloc, kVsockBuffer);
  EXPECT_EQ(hear(client), "");  // not before the guest accepts
  guest_->send(guest_->header(kVsockResponse, request.header.src_port, 1024));
  EXPECT_EQ(hear(client), "OK " + std::to_string(request.header.src_port) + "\n");

  say(client, "hello");
  settle();
  auto data = expect(kVsockReadWrite);
  EXPECT_EQ(data.payload, "hello");
  EXPECT_EQ(data.header.src_port, request.header.src_port);
  guest_->write(guest_->header(kVsockReadWrite, request.header.src_port, 1024), "hi there");
  EXPECT_EQ(hear(client), "hi there");
  EXPECT_GT(transport_->interrupts(Vsock::kReceive), 0);
  EXPECT_GT(transport_->interrupts(Vsock::kTransmit), 0);
}

TEST_F(VsockTest, GuestReachesAHostPort) {
  start();
  Stream stream = from_guest();
  guest_->write(to(stream, kVsockReadWrite), "question");
  EXPECT_EQ(hear(stream.host), "question");
  say(stream.host, "answer");
  settle();
  auto data = expect(kVsockReadWrite);
  EXPECT_EQ(data.payload, "answer");
  EXPECT_EQ(data.header.fwd_cnt, 8u);
  EXPECT_TRUE(transport_->memory().is_dirty(vmm::Gpa{0x110000}.gfn()));
}

TEST_F(VsockTest, ClientsWaitForTheDriver) {
  auto early = base::connect_unix(path_);
  ASSERT_TRUE(early);
  say(*early, "CONNECT 7\n");
  start();
  settle();
  EXPECT_EQ(expect(kVsockRequest).header.dst_port, 7u);
}

TEST_F(VsockTest, WordsBehindTheCommandBelongToTheStream) {
  start();
  base::Fd client = connect("CONNECT 1024\nCONNECT 7\n");
  auto request = expect(kVsockRequest);
  expect_nothing();
  guest_->send(guest_->header(kVsockResponse, request.header.src_port, 1024));
  settle();
  EXPECT_EQ(expect(kVsockReadWrite).payload, "CONNECT 7\n");
}

TEST_F(VsockTest, TheCommandMayComeInPieces) {
  start();
  base::Fd client = connect("CONN");
  expect_nothing();
  say(client, "ECT 4294967295\r");
  settle();
  expect_nothing();
  say(client, "\n");
  settle();
  EXPECT_EQ(expect(kVsockRequest).header.dst_port, 4294967295u);
}

TEST_F(VsockTest, OtherWordsThanTheCommandEndTheClient) {
  start();
  for (std::string words :
       {"GET / HTTP/1.1\n", "CONNECT\n", "CONNECT x\n", "CONNECT 4294967296\n", "CONNECT -1\n",
        "CONNECT 1 2\n", "\n", "CONNECT 000000000000000000000000000001\n"}) {
    base::Fd client = connect(words);
    EXPECT_EQ(hear(client), "<end>") << words;
    expect_nothing();
  }
  base::Fd endless = connect(std::string(20, 'x'));
  EXPECT_EQ(hear(endless), "");
  say(endless, std::string(20, 'x'));  // no newline, too long for one
  settle();
  (void)hear(endless);
  EXPECT_EQ(device_->connections(), 0u);
  base::Fd silent = connect("");
  EXPECT_EQ(device_->connections(), 1u);
  silent.reset();
  settle();
  EXPECT_EQ(device_->connections(), 0u);
}

TEST_F(VsockTest, TheHostSendsWhatTheGuestGrants) {
  start();
  guest_->buf_alloc = 10000;
  Stream stream = from_guest();
  std::string sent = pattern(100000), got;
  say(stream.host, sent);
  settle();
  int rounds = 0;
  while (got.size() < sent.size()) {
    ASSERT_LT(++rounds, 50);
    size_t round = 0;
    bool asked = false;
    for (auto packet = guest_->next(); packet; packet = guest_->next()) {
      if (packet->header.op == kVsockCreditRequest) {
        EXPECT_FALSE(asked);
        asked = true;
        continue;
      }
      EXPECT_EQ(packet->header.op, kVsockReadWrite);
      round += packet->payload.size();
      got += packet->payload;
    }
    EXPECT_LE(round, 10000u);
    EXPECT_GT(round, 0u);
    // An update that grants nothing changes nothing, and is not asked for again.
    if (asked) guest_->send(to(stream, kVsockCreditUpdate));
    settle();
    expect_nothing();
    guest_->fwd_cnt = static_cast<uint32_t>(got.size());
    guest_->send(to(stream, kVsockCreditUpdate));
    settle();
  }
  EXPECT_EQ(got, sent);
}

TEST_F(VsockTest, TheGuestSendsWhatItIsGranted) {
  start();
  Stream stream = from_guest();
  std::string sent = pattern(3 << 20), got;
  size_t done = 0;
  uint32_t fwd_cnt = 0;
  int stalls = 0;
  while (done < sent.size()) {
    size_t room = kVsockBuffer - (done - fwd_cnt);
    size_t piece = std::min({room, sent.size() - done, size_t{50000}});
    if (piece > 0) {
      guest_->write(to(stream, kVsockReadWrite), std::string_view(sent).substr(done, piece));
      done += piece;
    } else {
      // The host has not read: the device keeps what was granted, and says when there is room.
      ASSERT_LT(++stalls, 100);
      got += hear(stream.host);
      settle();
    }
    for (auto packet = guest_->next(); packet; packet = guest_->next()) {
      EXPECT_EQ(packet->header.op, kVsockCreditUpdate);
      fwd_cnt = packet->header.fwd_cnt;
    }
  }
  for (int i = 0; i < 100 && got.size() < sent.size(); ++i) {
    got += hear(stream.host);
    settle();
  }
  EXPECT_GT(stalls, 0);
  EXPECT_TRUE(got == sent) << got.size() << " of " << sent.size();
}

TEST_F(VsockTest, AnswersACreditRequest) {
  start();
  Stream stream = from_guest();
  guest_->write(to(stream, kVsockReadWrite), "12345");
  expect_nothing();
  guest_->send(to(stream, kVsockCreditRequest));
  auto update = expect(kVsockCreditUpdate);
  EXPECT_EQ(update.header.fwd_cnt, 5u);
  EXPECT_EQ(update.header.buf_alloc, kVsockBuffer);
}

TEST_F(VsockTest, TheHostMayEndItsHalf) {
  start();
  Stream stream = from_host();
  say(stream.host, "last words");
  ASSERT_EQ(::shutdown(stream.host.get(), SHUT_WR), 0);
  settle();
  EXPECT_EQ(expect(kVsockReadWrite).payload, "last words");
  EXPECT_EQ(expect(kVsockShutdown).header.flags, kVsockNoSend);
  guest_->write(to(stream, kVsockReadWrite), "reply");
  EXPECT_EQ(hear(stream.host), "reply");
  guest_->send(to(stream, kVsockShutdown));  // of nothing
  settle();
  auto both = to(stream, kVsockShutdown);
  both.flags = kVsockNothing;
  guest_->send(both);
  expect_reset(stream.port, kGuestPort);
  EXPECT_EQ(hear(stream.host), "<end>");
  EXPECT_EQ(device_->connections(), 0u);
}

TEST_F(VsockTest, TheGuestMayEndItsHalf) {
  start();
  Stream stream = from_guest();
  guest_->write(to(stream, kVsockReadWrite), "request");
  auto half = to(stream, kVsockShutdown);
  half.flags = kVsockNoSend;
  guest_->send(half);
  EXPECT_EQ(hear(stream.host), "request<end>");
  say(stream.host, "response");
  settle();
  EXPECT_EQ(expect(kVsockReadWrite).payload, "response");
  stream.host.reset();
  settle();
  EXPECT_EQ(expect(kVsockShutdown).header.flags, kVsockNothing);
  EXPECT_EQ(device_->connections(), 0u);
  expect_nothing();
}

TEST_F(VsockTest, AGuestThatStopsReadingMakesTheHostsWritesFail) {
  start();
  Stream stream = from_guest();
  auto half = to(stream, kVsockShutdown);
  half.flags = kVsockNoReceive;
  guest_->send(half);
  EXPECT_LT(::send(stream.host.get(), "x", 1, MSG_NOSIGNAL), 0);
  EXPECT_EQ(errno, EPIPE);
  guest_->write(to(stream, kVsockReadWrite), "still here");
  EXPECT_EQ(hear(stream.host), "still here");
}

TEST_F(VsockTest, AHostThatStopsReadingIsToldToTheGuest) {
  start();
  Stream stream = from_guest();
  ASSERT_EQ(::shutdown(stream.host.get(), SHUT_RD), 0);
  guest_->write(to(stream, kVsockReadWrite), "unheard");
  EXPECT_EQ(expect(kVsockShutdown).header.flags, kVsockNoReceive);
  say(stream.host, "but I talk");
  settle();
  EXPECT_EQ(expect(kVsockReadWrite).payload, "but I talk");
}

TEST_F(VsockTest, WhatTheGuestSentBeforeItClosedReachesASlowHost) {
  start();
  Stream stream = from_guest();
  std::string sent = pattern(kVsockBuffer);
  for (size_t done = 0; done < sent.size(); done += 32768) {
    guest_->write(to(stream, kVsockReadWrite), std::string_view(sent).substr(done, 32768));
  }
  while (guest_->next()) {
  }
  // Once more what the socket took, so that the device keeps some.
  std::string more = pattern(32768);
  guest_->write(to(stream, kVsockReadWrite), more);
  while (guest_->next()) {
  }
  auto both = to(stream, kVsockShutdown);
  both.flags = kVsockNothing;
  guest_->send(both);
  expect_reset(kHostPort, kGuestPort);  // the guest is done with it at once
  ASSERT_EQ(device_->connections(), 1u);
  Stream second = from_guest();  // and may use its port again
  std::string got;
  for (int i = 0; i < 100 && !got.ends_with("<end>"); ++i) {
    got += hear(stream.host);
    settle();
  }
  EXPECT_TRUE(got == sent + more + "<end>") << got.size();
  EXPECT_EQ(device_->connections(), 1u);
  guest_->write(to(second, kVsockReadWrite), "second");
  EXPECT_EQ(hear(second.host), "second");
}

TEST_F(VsockTest, AHostThatClosesIsReadToItsEnd) {
  start();
  guest_->buf_alloc = 6;
  Stream stream = from_guest();
  say(stream.host, "0123456789");
  stream.host.reset();
  settle();  // it hung up, with bytes the guest has no room for
  EXPECT_EQ(expect(kVsockReadWrite).payload, "012345");
  while (guest_->next()) {
  }
  guest_->fwd_cnt = 6;
  guest_->send(to(stream, kVsockCreditUpdate));
  EXPECT_EQ(expect(kVsockReadWrite).payload, "6789");
  EXPECT_EQ(expect(kVsockShutdown).header.flags, kVsockNothing);
  EXPECT_EQ(device_->connections(), 0u);
  EXPECT_EQ(transport_->watches(), 2u);  // the listener's and the device's own
}

TEST_F(VsockTest, AClientThatGivesUpIsTakenBack) {
  start();
  base::Fd client = connect("CONNECT 1024\n");
  uint32_t port = expect(kVsockRequest).header.src_port;
  client.reset();
  settle();
  expect_reset(port, 1024);
  EXPECT_EQ(device_->connections(), 0u);
}

TEST_F(VsockTest, AGuestThatRefusesEndsTheClient) {
  start();
  base::Fd client = connect("CONNECT 1024\n");
  guest_->send(guest_->header(kVsockReset, expect(kVsockRequest).header.src_port, 1024));
  EXPECT_EQ(hear(client), "<end>");
  expect_nothing();
}

TEST_F(VsockTest, PacketsWaitForReceiveBuffers) {
  start(0);
  base::Fd client = connect("CONNECT 1024\n");
  guest_->post(1);
  transport_->kick(Vsock::kReceive);
  auto request = expect(kVsockRequest);  // gives its buffer back
  guest_->send(guest_->header(kVsockResponse, request.header.src_port, 1024));
  std::string sent = pattern(10000), got;
  say(client, sent);
  for (int i = 0; i < 10; ++i) {
    settle();
    transport_->kick(Vsock::kReceive);
    if (auto packet = guest_->next()) got += packet->payload;
    expect_nothing();  // there is one buffer
  }
  EXPECT_TRUE(got == sent) << got.size();
}

TEST_F(VsockTest, ResetClosesEverything) {
  start();
  Stream open = from_host();
  base::Fd waiting = connect("CONNECT 7\n");
  base::Fd silent = connect("");
  EXPECT_EQ(device_->connections(), 3u);
  EXPECT_TRUE(transport_->reset_device());
  EXPECT_EQ(transport_->watches(), 0u);
  EXPECT_EQ(device_->connections(), 0u);
  EXPECT_EQ(hear(open.host), "<end>");
  EXPECT_EQ(hear(waiting), "<end>");
  EXPECT_EQ(hear(silent), "<end>");
}

TEST_F(VsockTest, ATransportResetClosesEverythingAndTellsTheGuest) {
  start();
  Stream open = from_host();
  ASSERT_TRUE(device_->send_transport_reset());
  EXPECT_EQ(hear(open.host), "<end>");
  // No buffer for the event yet.
  EXPECT_EQ(transport_->driver(Vsock::kEvent).used_index(), 0);
  vmm::Gpa event{0x300000};
  ASSERT_TRUE(transport_->memory().store<uint32_t>(event, 77));
  transport_->driver(Vsock::kEvent).add(0, {}, {{event, 4}});
  transport_->kick(Vsock::kEvent);
  EXPECT_EQ(transport_->driver(Vsock::kEvent).used_index(), 1);
  EXPECT_EQ(*transport_->memory().load<uint32_t>(event), kVsockTransportReset);
  EXPECT_EQ(transport_->interrupts(Vsock::kEvent), 1);
  from_host();  // and goes on
}

TEST_F(VsockTest, RemovesItsSocketFile) {
  EXPECT_TRUE(std::filesystem::exists(path_));
  transport_.reset();
  device_.reset();
  EXPECT_FALSE(std::filesystem::exists(path_));
}

}  // namespace
}  // namespace virtio
