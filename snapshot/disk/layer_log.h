// The log beside a disk layer: which blocks the layer holds, as of the guest's last flush. A flush
// makes the layer's data durable first, then appends what became present since the one before, then
// makes that durable, and only then is acknowledged; so a record that is there has its data.
//
//   header   48 bytes  "MVMDLOG1", layer id (16), blocks of the disk (8), 0 (8), checksum (8)
//   record   40 bytes  sequence (8), first block (8), number of blocks (8), state (8), checksum (8)
//
// All numbers little-endian; checksum: the store's hash of the layer id and the bytes before it.
// Sequences count from 1. A later record overrules an earlier one. The log ends at the first record
// that is not whole, not next in sequence, or fails its checksum: it was never acknowledged.
// A block's hash is not in the log: it would be wrong as soon as the block is written again, which
// changes no state. Whoever recovers a layer reads its data.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "snapshot/disk/presence_map.h"
#include "snapshot/store/format.h"

namespace snapshot {

inline constexpr size_t kLayerLogHeaderBytes = 48;
inline constexpr size_t kLayerLogRecordBytes = 40;

struct LayerRange {
  uint64_t first = 0, count = 0;  // blocks
  Presence state = Presence::kAbsent;
  bool operator==(const LayerRange&) const = default;
};

class LayerLogEncoder {
 public:
  LayerLogEncoder(const Format& format, const Id& layer, uint64_t blocks)
      : format_(format), layer_(layer), blocks_(blocks) {}
  // Appends `ranges` to `out`, after the header where they are the first ones.
  void encode(std::span<const LayerRange> ranges, std::vector<std::byte>& out);

 private:
  Format format_;
  Id layer_;
  uint64_t blocks_;
  uint64_t sequence_ = 0;  // of the last record
};

// The ranges of a log, in order; what is torn or damaged ends it. An empty log, or one whose header
// is torn, has none. A log of another layer or of a disk of another size is an error.
base::Result<std::vector<LayerRange>> decode_layer_log(const Format& format, const Id& layer,
                                                       uint64_t blocks,
                                                       std::span<const std::byte> log);

}  // namespace snapshot
