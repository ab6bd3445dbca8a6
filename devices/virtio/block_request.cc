#include "devices/virtio/block_request.h"

#include <fmt/format.h>

#include <array>

#include "devices/virtio/chain_io.h"

namespace virtio {

using base::fail;
using base::Result;

namespace {

// Wire formats and codes (virtio 1.2, 5.2.6).
struct Header {
  uint32_t type;
  uint32_t reserved;
  uint64_t sector;
};
static_assert(sizeof(Header) == kBlockHeaderBytes);

struct Segment {  // of discard and write zeroes
  uint64_t sector;
  uint32_t sectors;
  uint32_t flags;
};
static_assert(sizeof(Segment) == 16);
constexpr uint32_t kSegmentUnmap = 1;

enum Code : uint32_t {
  kIn = 0,
  kOut = 1,
  kFlush = 4,
  kGetId = 8,
  kDiscard = 11,
  kWriteZeroes = 13,
};

bool on_disk(uint64_t sector, uint64_t sectors, const BlockLimits& limits) {
  return sector <= limits.sectors && sectors <= limits.sectors - sector;
}

BlockStatus take_transfer(uint64_t sector, uint64_t bytes, const BlockLimits& limits,
                          BlockRequest& request) {
  if (bytes % kSectorBytes != 0) return BlockStatus::kIoError;
  if (!on_disk(sector, bytes / kSectorBytes, limits)) return BlockStatus::kIoError;
  request.offset = sector * kSectorBytes;
  request.length = bytes;
  return BlockStatus::kOk;
}

Result<BlockStatus> take_ranges(const vmm::GuestMemory& memory, const DescriptorChain& chain,
                                uint64_t bytes, const BlockLimits& limits, BlockRequest& request) {
  bool discard = request.type == BlockRequest::Type::kDiscard;
  if (!(discard ? limits.discard : limits.write_zeroes)) return BlockStatus::kUnsupported;
  size_t count = bytes / sizeof(Segment);
  if (bytes % sizeof(Segment) != 0 || count == 0 || count > kMaxBlockRanges) {
    return BlockStatus::kIoError;
  }
  std::array<Segment, kMaxBlockRanges> segments{};
  auto into = std::as_writable_bytes(std::span(segments).first(count));
  TRY(read_chain(memory, chain, kBlockHeaderBytes, into));
  for (const Segment& segment : std::span(segments).first(count)) {
    // A discard gives space back anyway: there the flag is as unknown as any other (5.2.6.2).
    uint32_t known = discard ? 0 : kSegmentUnmap;
    if (segment.flags & ~known) return BlockStatus::kUnsupported;
    if (segment.sectors > kMaxRangeSectors || !on_disk(segment.sector, segment.sectors, limits)) {
      return BlockStatus::kIoError;
    }
    if (segment.sectors == 0) continue;
    request.ranges.push_back({segment.sector * kSectorBytes, segment.sectors * kSectorBytes,
                              (segment.flags & kSegmentUnmap) != 0});
  }
  return BlockStatus::kOk;
}

}  // namespace

Result<BlockStatus> parse_block_request(const vmm::GuestMemory& memory,
                                        const DescriptorChain& chain, const BlockLimits& limits,
                                        BlockRequest& request) {
  uint64_t readable = chain.readable_bytes();
  uint64_t writable = chain.writable_bytes();
  if (readable < sizeof(Header)) {
    return fail(fmt::format("block request with a header of {} bytes", readable));
  }
  if (writable == 0) return fail("block request without a status byte");
  Header header;
  TRY(read_chain(memory, chain, 0, std::as_writable_bytes(std::span(&header, 1))));

  request.offset = request.length = 0;
  request.ranges.clear();
  uint64_t data_in = writable - 1;
  uint64_t data_out = readable - sizeof(Header);
  switch (header.type) {
    case kIn:
      request.type = BlockRequest::Type::kRead;
      return take_transfer(header.sector, data_in, limits, request);
    case kOut:
      request.type = BlockRequest::Type::kWrite;
      if (limits.read_only) return BlockStatus::kIoError;
      return take_transfer(header.sector, data_out, limits, request);
    case kFlush:
      request.type = BlockRequest::Type::kFlush;
      return BlockStatus::kOk;
    case kGetId:
      request.type = BlockRequest::Type::kGetId;
      request.length = data_in;
      return BlockStatus::kOk;
    case kDiscard:
      request.type = BlockRequest::Type::kDiscard;
      return take_ranges(memory, chain, data_out, limits, request);
    case kWriteZeroes:
      request.type = BlockRequest::Type::kWriteZeroes;
      return take_ranges(memory, chain, data_out, limits, request);
    default:
      return BlockStatus::kUnsupported;
  }
}

}  // namespace virtio
