// The host's end of a network device: one non-blocking descriptor that carries whole Ethernet
// frames, one for each read(2) and write(2). A tap has that shape by itself; the user-mode network
// and the tests give it by a socket pair. Owned by its Net, called under the transport's lock.
#pragma once

#include <cstdint>

#include "vmm/base/result.h"

namespace virtio {

class NetBackend {
 public:
  virtual ~NetBackend() = default;
  virtual int fd() const = 0;
  // The offload features of virtio-net (virtio 1.2, 5.1.3) that the descriptor can carry. Where
  // there are any, each frame on it has a virtio_net_hdr of 12 bytes in front; where not, none.
  virtual uint64_t offloads() const { return 0; }
  // Those of them the driver took.
  virtual base::Result<void> use_offloads(uint64_t /*features*/) { return {}; }
};

}  // namespace virtio
