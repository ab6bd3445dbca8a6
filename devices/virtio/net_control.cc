// The control queue of the network device (virtio 1.2, 5.1.6.5): a command has two bytes, class and
// command, what belongs to it, and a byte for the answer. The one that is known is the driver's
// "announced" (5.1.6.5.4): after a restore the network around the guest is another one, so its
// driver is asked to send gratuitous ARP and the like (5.1.6.5.4.1), and then clears the request.
#include <array>

#include "devices/virtio/chain_io.h"
#include "devices/virtio/net.h"

namespace virtio {

using base::Result;

namespace {

constexpr std::byte kClassAnnounce{3}, kAnnounceAcknowledge{0};
constexpr std::byte kAnswerOk{0}, kAnswerError{1};

}  // namespace

Result<void> Net::control() {
  Virtqueue& queue = transport_->queue(kControlQueue);
  // A queue's worth, then the loop's other devices; the driver waits for each answer, so it never
  // has more.
  for (unsigned commands = 0; commands < queue.size(); ++commands) {
    TRY_ASSIGN(bool popped, queue.pop(control_chain_));
    if (!popped) {
      TRY_ASSIGN(bool more, queue.enable_kicks());
      if (!more) break;
      continue;
    }
    TRY(obey(control_chain_));
  }
  return transport_->interrupt(kControlQueue);
}

Result<void> Net::obey(const DescriptorChain& chain) {
  std::array<std::byte, 2> command;
  TRY_ASSIGN(size_t got, read_chain(transport_->memory(), chain, 0, command));
  if (got != command.size() || chain.writable_bytes() == 0) {
    return base::fail("network control command without its two bytes or a place for the answer");
  }
  bool known = command[0] == kClassAnnounce && command[1] == kAnnounceAcknowledge;
  if (known) announce_ = false;
  std::byte answer = known ? kAnswerOk : kAnswerError;
  TRY(write_chain(transport_->memory(), chain, chain.writable_bytes() - 1, {&answer, 1}));
  return transport_->queue(kControlQueue).push(chain.head, chain.writable_bytes() == 1 ? 1 : 0);
}

}  // namespace virtio
