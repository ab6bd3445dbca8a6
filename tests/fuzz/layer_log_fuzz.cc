// The log of a disk layer, as a store from elsewhere may hold it. The first byte chooses between
// the input as it is and records with right checksums, which a hostile store may have as well.
#include "snapshot/disk/layer_log.h"
#include "tests/fuzz/fuzz_input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace snapshot;
  constexpr uint64_t kBlocks = 5000;
  const Format format{{}, 7};
  const Id id{1, 2};
  fuzz::Input input(data, size);
  bool right = input.u8() & 1;
  std::vector<std::byte> log;
  if (right) {
    std::vector<LayerRange> ranges;
    while (!input.empty()) {
      ranges.push_back({input.u16(), input.u16(), static_cast<Presence>(input.u8() % 4)});
    }
    LayerLogEncoder(format, id, kBlocks).encode(ranges, log);
  } else {
    auto bytes = std::as_bytes(input.rest());
    log.assign(bytes.begin(), bytes.end());
  }
  auto ranges = decode_layer_log(format, id, kBlocks, log);
  if (!ranges) return 0;
  PresenceMap map(kBlocks);
  for (const LayerRange& range : *ranges) {
    FUZZ_CHECK(range.count > 0 && range.first < kBlocks && range.count <= kBlocks - range.first);
    FUZZ_CHECK(range.state != Presence::kAbsent);
    if (range.state == Presence::kZero) map.set_zero(range.first, range.count);
    for (uint64_t i = 0; range.state == Presence::kData && i < range.count; ++i) {
      map.set_data(range.first + i, i);
    }
    FUZZ_CHECK(map.get(range.first).state == range.state);
    FUZZ_CHECK(map.get(range.first + range.count - 1).state == range.state);
  }
  // What was read is what an encoder writes.
  std::vector<std::byte> again;
  LayerLogEncoder(format, id, kBlocks).encode(*ranges, again);
  if (!ranges->empty()) FUZZ_CHECK(std::equal(again.begin(), again.end(), log.begin()));
  return 0;
}
