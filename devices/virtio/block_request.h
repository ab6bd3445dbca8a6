// What a driver may ask of a block device (virtio 1.2, section 5.2.6): taken out of a descriptor
// chain and checked against the disk, whatever way its header, data and status byte are spread over
// descriptors.
#pragma once

#include <cstdint>
#include <vector>

#include "devices/virtio/disk.h"
#include "devices/virtio/virtqueue.h"
#include "vmm/base/result.h"
#include "vmm/guest_memory.h"

namespace virtio {

enum class BlockStatus : uint8_t { kOk = 0, kIoError = 1, kUnsupported = 2 };

// The limits of discard and write-zeroes requests, as the configuration space tells them.
inline constexpr uint32_t kMaxBlockRanges = 16;
inline constexpr uint32_t kMaxRangeSectors = 1 << 21;  // 1 GiB
// A request begins with type, priority and sector.
inline constexpr uint32_t kBlockHeaderBytes = 16;

struct BlockRequest {
  enum class Type { kRead, kWrite, kFlush, kGetId, kDiscard, kWriteZeroes };
  Type type = Type::kFlush;
  uint64_t offset = 0;            // read and write: bytes on the disk
  uint64_t length = 0;            // bytes of data; the status byte is not among them
  std::vector<DiskRange> ranges;  // discard and write zeroes: those that are not empty
};

struct BlockLimits {
  uint64_t sectors = 0;
  bool read_only = false;
  bool discard = false;       // VIRTIO_BLK_F_DISCARD is offered
  bool write_zeroes = false;  // VIRTIO_BLK_F_WRITE_ZEROES is offered
};

// Reads each byte of the request once. kOk: `request` can be carried out. Another status is the
// answer to give at once. An error: there is no request, or no place for its status.
base::Result<BlockStatus> parse_block_request(const vmm::GuestMemory& memory,
                                              const DescriptorChain& chain,
                                              const BlockLimits& limits, BlockRequest& request);

}  // namespace virtio
