// A hostile driver on one side of the network device, and frames of any size on the other. The
// first byte says whether frames carry offload headers.
#include "devices/virtio/net.h"
#include "tests/fuzz/queue_fuzz.h"
#include "tests/support/socket_backend.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  fuzz::Input input(data, size);
  bool offloads = input.u8() & 1;
  testing_support::Cable cable(offloads ? virtio::kNetCsum | virtio::kNetGuestCsum |
                                              virtio::kNetGuestTso4 | virtio::kNetHostTso4
                                        : 0);
  virtio::Net device("net0", {0x52, 0x54, 0, 1, 2, 3}, cable.take_backend(), input.u8());
  fuzz::drive(device, input, [&](fuzz::Input& script) {
    uint8_t action = script.u8();
    if (action == 255) return cable.unplug();
    if (action % 2 == 0) {
      size_t frame = cable.receive().size();
      FUZZ_CHECK(frame <= virtio::Net::kMaxFrameBytes + (offloads ? 12 : 0));
      return;
    }
    // Long frames need no long script: their beginning is the script's, the rest repeats a byte.
    std::vector<std::byte> frame(script.u16() * (action & 2 ? 2u : 1u), std::byte{action});
    auto head = std::as_bytes(script.bytes(action / 4));
    std::copy_n(head.begin(), std::min(head.size(), frame.size()), frame.begin());
    if (!frame.empty() && cable.fd() >= 0) (void)cable.send(frame);
  });
  return 0;
}
