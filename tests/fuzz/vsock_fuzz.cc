// A vsock device between a hostile guest and host programs that connect, talk and leave in any
// order. The script's guest reaches a listener at port 1.
#include <sys/socket.h>
#include <unistd.h>

#include "devices/virtio/vsock.h"
#include "tests/fuzz/queue_fuzz.h"
#include "vmm/base/unix_socket.h"

namespace {

constexpr size_t kMaxPeers = 16;

class Programs {
 public:
  Programs(virtio::Vsock& device, const std::string& path)
      : device_(device),
        path_(path),
        server_(std::move(*base::UnixListener::create(path + "_1"))) {}

  void act(fuzz::Input& input) {
    uint8_t what = input.u8();
    if (what == 0xF8) return (void)device_.send_transport_reset();
    if (what % 8 == 0) return keep(base::connect_unix(path_));
    if (what % 8 == 1) return keep(server_.accept());
    if (peers_.empty()) return;
    auto& peer = peers_[what / 8 % peers_.size()];
    char bytes[4096];
    switch (what % 8) {
      case 2: {
        auto words = input.bytes(input.u8());
        (void)!::send(peer.get(), words.data(), words.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
        return;
      }
      case 3:
        (void)!::send(peer.get(), bytes_.data(), bytes_.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
        return;
      case 4:
        (void)!::recv(peer.get(), bytes, sizeof bytes, MSG_DONTWAIT);
        return;
      case 5:
        ::shutdown(peer.get(), input.u8() % 3);
        return;
      case 6:
        peers_.erase(peers_.begin() + what / 8 % static_cast<int>(peers_.size()));
        return;
      case 7:
        (void)!::send(peer.get(), "CONNECT 1024\n", 13, MSG_NOSIGNAL | MSG_DONTWAIT);
        return;
    }
  }

 private:
  void keep(base::Result<base::Fd> peer) {
    if (peer && peers_.size() < kMaxPeers) peers_.push_back(std::move(*peer));
  }

  virtio::Vsock& device_;
  std::string path_;
  base::UnixListener server_;
  std::vector<base::Fd> peers_;
  std::string bytes_ = std::string(20000, 'x');
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  fuzz::Input input(data, size);
  std::string path = "/tmp/minivmm-vsock-fuzz-" + std::to_string(::getpid());
  auto device = std::move(*virtio::Vsock::create("vsock", 42, path));
  Programs programs(*device, path);
  fuzz::drive(*device, input, [&](fuzz::Input& more) {
    programs.act(more);
    FUZZ_CHECK(device->connections() <= virtio::Vsock::kMaxConnections);
  });
  FUZZ_CHECK(device->connections() == 0);
  return 0;
}
