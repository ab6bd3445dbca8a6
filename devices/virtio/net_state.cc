// The network device in a snapshot. Format: MAC address. A frame that waits for receive buffers
// stays with the machine that has it: the restored one has lost it, as a network may. Frames to be
// sent are in the queue until they are out, and none goes out twice. Each restored driver that can
// is asked to announce itself, by a bit of the status that the interrupt of the restore makes it
// read.
#include <fmt/format.h>

#include "devices/virtio/net.h"

namespace virtio {

void Net::save(base::Encoder& to) const { to.bytes(std::as_bytes(std::span(mac_))); }

// The driver has read its address long ago, so the one saved is the one that counts.
base::Result<void> Net::restore(base::Decoder& from) {
  auto saved = from.structure<MacAddress>();
  if (saved[0] & 1) return base::fail(fmt::format("{} is no unicast address", format_mac(saved)));
  mac_ = saved;
  announce_ = true;
  return {};
}

}  // namespace virtio
