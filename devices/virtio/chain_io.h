// Copies between a descriptor chain and host buffers, for devices whose requests are small. A block
// or network device that moves much data builds iovecs instead (iovecs()).
#pragma once

#include <sys/uio.h>

#include <algorithm>
#include <span>
#include <vector>

#include "devices/virtio/virtqueue.h"

namespace virtio {

// Copies readable bytes [offset, offset + into.size()) of the chain; returns how many there were.
inline base::Result<size_t> read_chain(const vmm::GuestMemory& memory, const DescriptorChain& chain,
                                       uint64_t offset, std::span<std::byte> into) {
  size_t done = 0;
  for (const Buffer& buffer : chain.readable) {
    if (offset >= buffer.length) {
      offset -= buffer.length;
      continue;
    }
    size_t piece = std::min<uint64_t>(buffer.length - offset, into.size() - done);
    TRY(memory.read(buffer.gpa + offset, into.subspan(done, piece)));
    done += piece;
    offset = 0;
    if (done == into.size()) break;
  }
  return done;
}

// Copies `from` to the writable bytes of the chain from `offset` on, marking them dirty; returns
// how many fitted.
inline base::Result<size_t> write_chain(vmm::GuestMemory& memory, const DescriptorChain& chain,
                                        uint64_t offset, std::span<const std::byte> from) {
  size_t done = 0;
  for (const Buffer& buffer : chain.writable) {
    if (offset >= buffer.length) {
      offset -= buffer.length;
      continue;
    }
    size_t piece = std::min<uint64_t>(buffer.length - offset, from.size() - done);
    TRY(memory.write(buffer.gpa + offset, from.subspan(done, piece)));
    done += piece;
    offset = 0;
    if (done == from.size()) break;
  }
  return done;
}

// Host vectors of [offset, offset + length) of `buffers`, appended to `out`. For writable buffers
// the caller marks what was written (mark_dirty below) once the transfer is complete.
inline base::Result<void> append_iovecs(vmm::GuestMemory& memory, std::span<const Buffer> buffers,
                                        uint64_t offset, uint64_t length, std::vector<iovec>& out) {
  for (const Buffer& buffer : buffers) {
    if (length == 0) break;
    if (offset >= buffer.length) {
      offset -= buffer.length;
      continue;
    }
    uint64_t piece = std::min(buffer.length - offset, length);
    TRY_ASSIGN(auto target, memory.dma_target(buffer.gpa + offset, piece));
    out.push_back({target.data(), target.size()});
    length -= piece;
    offset = 0;
  }
  if (length != 0) return base::fail("descriptor chain is too short for its request");
  return {};
}

// Marks the first `length` writable bytes of a chain dirty.
inline void mark_dirty(vmm::GuestMemory& memory, std::span<const Buffer> buffers, uint64_t length) {
  for (const Buffer& buffer : buffers) {
    uint64_t piece = std::min<uint64_t>(buffer.length, length);
    memory.mark_dirty(buffer.gpa, piece);
    length -= piece;
    if (length == 0) return;
  }
}

}  // namespace virtio
