// The block device in a snapshot. Format: capacity in sectors, read-only, serial number. Requests
// in flight are listed by head with the queue and issued again: none is waited for. Writing the
// same data once more to the same place does no harm; a read in flight has not been answered yet.
#include <fmt/format.h>

#include "devices/virtio/block.h"

namespace virtio {

using base::Result;

void Block::save(base::Encoder& to) const {
  to.u64(disk_->size() / kSectorBytes);
  to.boolean(disk_->read_only());
  to.bytes(std::as_bytes(std::span(serial_)));
}

Result<void> Block::restore(base::Decoder& from) {
  uint64_t sectors = from.u64();
  bool read_only = from.boolean();
  auto serial = from.structure<decltype(serial_)>();
  if (uint64_t here = disk_->size() / kSectorBytes; sectors != here) {
    return base::fail(
        fmt::format("the guest's disk has {} sectors, this one has {}", sectors, here));
  }
  if (read_only != disk_->read_only()) {
    return base::fail(fmt::format("the guest's disk is {}, this one is not",
                                  read_only ? "read-only" : "writable"));
  }
  serial_ = serial;
  return {};
}

void Block::list_in_flight(uint16_t /*queue*/, std::vector<uint16_t>& heads) const {
  for (const auto& request : requests_) {
    if (request && request->busy) heads.push_back(request->chain.head);
  }
}

Result<void> Block::resume(uint16_t queue, std::span<const uint16_t> heads) {
  for (uint16_t head : heads) {
    TRY(transport_->queue(queue).retake(head, next_chain_));
    TRY(start_next());
  }
  return {};  // process() submits them
}

}  // namespace virtio
