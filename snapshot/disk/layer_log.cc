#include "snapshot/disk/layer_log.h"

#include <fmt/format.h>

#include "vmm/base/codec.h"

namespace snapshot {
namespace {

constexpr std::string_view kMagic = "MVMDLOG1";

// Of the bytes from `begin` on. The layer's id is part of it: what a disk kept of another log in
// the same place is not taken for a record of this one.
uint64_t checksum(const Format& format, const Id& layer, std::span<const std::byte> bytes) {
  std::vector<std::byte> whole;
  whole.reserve(16 + kLayerLogHeaderBytes);
  base::Encoder encoder(whole);
  encoder.structure(layer);
  encoder.bytes(bytes);
  return format.hash(whole);
}

void seal(const Format& format, const Id& layer, size_t begin, std::vector<std::byte>& out) {
  uint64_t sum = checksum(format, layer, std::span(out).subspan(begin));
  base::Encoder(out).u64(sum);
}

bool sealed(const Format& format, const Id& layer, std::span<const std::byte> bytes) {
  size_t body = bytes.size() - 8;
  return base::Decoder(bytes.subspan(body)).u64() == checksum(format, layer, bytes.first(body));
}

}  // namespace

void LayerLogEncoder::encode(std::span<const LayerRange> ranges, std::vector<std::byte>& out) {
  base::Encoder encoder(out);
  if (sequence_ == 0) {
    size_t begin = out.size();
    encoder.bytes(std::as_bytes(std::span(kMagic)));
    encoder.structure(layer_);
    encoder.u64(blocks_);
    encoder.u64(0);
    seal(format_, layer_, begin, out);
  }
  for (const LayerRange& range : ranges) {
    size_t begin = out.size();
    encoder.u64(++sequence_);
    encoder.u64(range.first);
    encoder.u64(range.count);
    encoder.u64(static_cast<uint64_t>(range.state));
    seal(format_, layer_, begin, out);
  }
}

base::Result<std::vector<LayerRange>> decode_layer_log(const Format& format, const Id& layer,
                                                       uint64_t blocks,
                                                       std::span<const std::byte> log) {
  std::vector<LayerRange> ranges;
  if (log.size() < kLayerLogHeaderBytes) return ranges;
  base::Decoder header(log.first(kLayerLogHeaderBytes));
  auto magic = header.bytes(kMagic.size());
  auto id = header.structure<Id>();
  uint64_t of_blocks = header.u64();
  if (!std::ranges::equal(magic, std::as_bytes(std::span(kMagic)))) return ranges;
  if (!sealed(format, id, log.first(kLayerLogHeaderBytes))) return ranges;
  if (id != layer) {
    return base::fail(
        fmt::format("the log is that of layer {}, not of {}", id.text(), layer.text()));
  }
  if (of_blocks != blocks) {
    return base::fail(fmt::format("layer {} is that of a disk of {} blocks, this one has {}",
                                  layer.text(), of_blocks, blocks));
  }
  log = log.subspan(kLayerLogHeaderBytes);
  for (uint64_t sequence = 1; log.size() >= kLayerLogRecordBytes; ++sequence) {
    auto bytes = log.first(kLayerLogRecordBytes);
    base::Decoder record(bytes);
    uint64_t found = record.u64();
    LayerRange range{record.u64(), record.u64(), Presence::kAbsent};
    uint64_t state = record.u64();
    if (found != sequence || !sealed(format, layer, bytes)) break;
    // Nobody writes these, whole as they are.
    bool makes_sense = range.count > 0 && range.first < blocks &&
                       range.count <= blocks - range.first &&
                       (state == static_cast<uint64_t>(Presence::kData) ||
                        state == static_cast<uint64_t>(Presence::kZero));
    if (!makes_sense) {
      return base::fail(
          fmt::format("the log of layer {} is damaged at record {}", layer.text(), sequence));
    }
    range.state = static_cast<Presence>(state);
    ranges.push_back(range);
    log = log.subspan(kLayerLogRecordBytes);
  }
  return ranges;
}

}  // namespace snapshot
