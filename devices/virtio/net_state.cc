// The network device in a snapshot: nothing is kept. Its address is the machine's, as it was or
// another one that was asked for, which a driver reads when it begins. A frame that waits for
// receive buffers stays with the machine that has it: the restored one has lost it, as a network
// may. Frames to be sent are in the queue until they are out, and none goes out twice. Each
// restored driver that can is asked to announce itself, by a bit of the status that the interrupt
// of the restore makes it read.
#include "devices/virtio/net.h"

namespace virtio {

void Net::save(base::Encoder&) const {}

base::Result<void> Net::restore(base::Decoder&) {
  announce_ = true;
  return {};
}

}  // namespace virtio
