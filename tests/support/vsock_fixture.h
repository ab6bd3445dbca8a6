// A vsock device between a guest made by hand and host programs on real Unix sockets, all on the
// test's thread.
#pragma once

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <filesystem>
#include <string>

#include "devices/virtio/vsock.h"
#include "tests/support/vsock_guest.h"
#include "vmm/base/unix_socket.h"

namespace testing_support {

class VsockFixture : public ::testing::Test {
 protected:
  static constexpr uint64_t kCid = 42;
  static constexpr uint32_t kGuestPort = 1024, kHostPort = 52;

  VsockFixture() {
    char name[] = "/tmp/minivmm-vsock-XXXXXX";
    directory_ = ::mkdtemp(name);
    path_ = directory_ / "v";
    device_ = std::move(*virtio::Vsock::create("vsock", kCid, path_));
    transport_ = std::make_unique<FakeTransport>(*device_);
    guest_ = std::make_unique<VsockGuest>(*transport_, kCid);
  }
  ~VsockFixture() override {
    device_.reset();
    std::filesystem::remove_all(directory_);
  }

  void start(int buffers = 16, uint32_t size = 4096) {
    ASSERT_TRUE(transport_->activate());
    guest_->post(buffers, size);
  }

  // Runs the device until nothing is ready: a socket that stays ready would keep a thread busy.
  void settle() {
    int turns = 0;
    while (transport_->poll(0)) ASSERT_LT(++turns, 1000) << "a descriptor stays ready";
    ASSERT_EQ(transport_->failure(), std::nullopt);
  }

  base::Fd connect(const std::string& first_words) {
    auto client = base::connect_unix(path_);
    EXPECT_TRUE(client) << client.error().text();
    say(*client, first_words);
    settle();
    return std::move(*client);
  }
  static void say(const base::Fd& fd, std::string_view words) {
    ASSERT_EQ(::send(fd.get(), words.data(), words.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(words.size()));
  }
  // What is there to be read now; "<end>" is added at the end of the stream.
  static std::string hear(const base::Fd& fd) {
    std::string heard;
    char bytes[65536];
    ssize_t n;
    while ((n = ::recv(fd.get(), bytes, sizeof bytes, MSG_DONTWAIT)) > 0) {
      heard.append(bytes, static_cast<size_t>(n));
    }
    return n == 0 ? heard + "<end>" : heard;
  }

  // The device's next packet, which must have this op.
  VsockGuest::Packet expect(virtio::VsockOp op) {
    auto packet = guest_->next();
    EXPECT_TRUE(packet) << "no packet, where op " << op << " should be";
    if (!packet) return {};
    EXPECT_EQ(packet->header.op, op);
    EXPECT_EQ(packet->header.src_cid, virtio::kVsockHostCid);
    EXPECT_EQ(packet->header.dst_cid, kCid);
    EXPECT_EQ(packet->header.type, virtio::kVsockStream);
    return *packet;
  }
  void expect_nothing() {
    auto packet = guest_->next();
    EXPECT_FALSE(packet) << "op " << packet->header.op;
  }
  void expect_reset(uint32_t host_port, uint32_t guest_port) {
    auto packet = expect(virtio::kVsockReset);
    EXPECT_EQ(packet.header.src_port, host_port);
    EXPECT_EQ(packet.header.dst_port, guest_port);
  }

  // Established streams: the host's end, and the port it has.
  struct Stream {
    base::Fd host;
    uint32_t port;
  };
  Stream from_host() {
    Stream stream{connect("CONNECT 1024\n"), 0};
    stream.port = expect(virtio::kVsockRequest).header.src_port;
    guest_->send(guest_->header(virtio::kVsockResponse, stream.port, kGuestPort));
    EXPECT_EQ(hear(stream.host), "OK " + std::to_string(stream.port) + "\n");
    settle();
    return stream;
  }
  Stream from_guest(uint32_t guest_port = kGuestPort) {
    if (!server_) listen();
    guest_->send(guest_->header(virtio::kVsockRequest, kHostPort, guest_port));
    EXPECT_EQ(expect(virtio::kVsockResponse).header.dst_port, guest_port);
    auto client = server_->accept();
    EXPECT_TRUE(client) << client.error().text();
    return {std::move(*client), kHostPort};
  }
  virtio::VsockHeader to(const Stream& stream, virtio::VsockOp op) const {
    return guest_->header(op, stream.port, kGuestPort);
  }

  void listen() {
    auto server = base::UnixListener::create(path_ + "_52");
    ASSERT_TRUE(server) << server.error().text();
    server_ = std::make_unique<base::UnixListener>(std::move(*server));
  }

  std::filesystem::path directory_;
  std::string path_;
  std::unique_ptr<virtio::Vsock> device_;
  std::unique_ptr<FakeTransport> transport_;
  std::unique_ptr<VsockGuest> guest_;
  std::unique_ptr<base::UnixListener> server_;  // what the guest reaches at kHostPort
};

}  // namespace testing_support
