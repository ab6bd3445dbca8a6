// A network device on a tap interface of the host, with checksum and TCP segmentation offload: the
// host's network stack takes and gives frames of up to 64 KiB, each with its virtio_net_hdr.
#pragma once

#include <memory>
#include <string>

#include "devices/virtio/net_backend.h"
#include "vmm/base/fd.h"

namespace virtio {

class Tap : public NetBackend {
 public:
  // Attaches to the tap `name`, which must exist: creating one needs a privilege, using one that
  // was made for this user does not.
  static base::Result<std::unique_ptr<Tap>> open(const std::string& name);

  int fd() const override { return fd_.get(); }
  uint64_t offloads() const override;
  base::Result<void> use_offloads(uint64_t features) override;

 private:
  explicit Tap(base::Fd fd) : fd_(std::move(fd)) {}

  base::Fd fd_;
};

}  // namespace virtio
