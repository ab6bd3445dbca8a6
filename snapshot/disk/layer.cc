#include "snapshot/disk/layer.h"

#include <fmt/format.h>

namespace snapshot {

void Layer::set_data(uint64_t block, PageHash hash) {
  dirty_ = true;
  if (map_.get(block).state != Presence::kData) note({block, 1, Presence::kData});
  map_.set_data(block, hash);
}

void Layer::set_zero(uint64_t first, uint64_t count) {
  note({first, count, Presence::kZero});
  map_.set_zero(first, count);
}

void Layer::note(LayerRange range) {
  if (!logged_) return;
  if (!unlogged_.empty()) {
    LayerRange& last = unlogged_.back();
    if (last == range) return;
    if (last.state == range.state && last.first + last.count == range.first) {
      last.count += range.count;
      return;
    }
  }
  unlogged_.push_back(range);
}

Layer::Append Layer::begin_sync() {
  Append append{log_end_, {}};
  if (!unlogged_.empty()) encoder_.encode(unlogged_, append.records);
  log_end_ += append.records.size();
  unlogged_.clear();
  dirty_ = false;
  return append;
}

base::Result<PresenceMap> recover_layer(const Format& format, const Id& id, uint64_t blocks,
                                        const File& data, const File& log) {
  TRY_ASSIGN(uint64_t log_bytes, log.size());
  // A record for each change of a block's state; this many are not written between two snapshots.
  constexpr uint64_t kMaxLogBytes = uint64_t{4} << 30;
  if (log_bytes > kMaxLogBytes) {
    return base::fail(fmt::format("{} has {} bytes: it is no log", log.name(), log_bytes));
  }
  std::vector<std::byte> bytes(log_bytes);
  TRY(log.read(0, bytes));
  TRY_ASSIGN(auto ranges, decode_layer_log(format, id, blocks, bytes));
  PresenceMap map(blocks);
  for (const LayerRange& range : ranges) {
    if (range.state == Presence::kZero) {
      map.set_zero(range.first, range.count);
    } else {
      for (uint64_t i = 0; i < range.count; ++i) map.set_data(range.first + i, 0);
    }
  }
  // Only blocks that end up as data are read: where one became zero later, its space may have been
  // given back, the end of the file with it.
  PresenceMap hashed(blocks);
  base::Result<void> read;
  alignas(kPageBytes) std::array<std::byte, kPageBytes> page;
  map.for_each([&](uint64_t block, PresenceMap::Block found) {
    if (!read) return;
    if (found.state == Presence::kZero) return hashed.set_zero(block, 1);
    read = data.read(block * kPageBytes, page);
    if (read) hashed.set_data(block, format.hash(page));
  });
  TRY(read);
  return hashed;
}

}  // namespace snapshot
