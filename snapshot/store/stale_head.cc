#include "snapshot/store/stale_head.h"

#include <algorithm>
#include <span>
#include <vector>

#include "snapshot/store/run.h"
#include "snapshot/store/snapshot.h"

namespace snapshot {

using base::Result;

namespace {

// `layers` without those that the snapshot has sealed: of each disk, all up to the last one that
// the newest run of the disk names.
Result<std::vector<Head::Layer>> layers_after(Storage& storage, const Format& format,
                                              const Manifest& manifest,
                                              std::vector<Head::Layer> layers) {
  for (const SpaceInfo& space : manifest.spaces) {
    if (space.space == kRamSpace || space.runs.empty()) continue;
    RunReader reader(storage, format, space.space, space.runs.front());
    TRY_ASSIGN(const std::span<const SlotInfo> slots, reader.slots());
    auto sealed = [&](const Head::Layer& layer) {
      return std::ranges::any_of(slots, [&](const SlotInfo& slot) {
        return slot.kind == SlotInfo::Kind::kLayer && Head::Layer{slot.disk, slot.id} == layer;
      });
    };
    const auto last = std::find_if(layers.rbegin(), layers.rend(), sealed);
    if (last == layers.rend()) continue;
    const uint32_t disk = last->disk;
    const auto end = std::remove_if(layers.begin(), last.base(),
                                    [&](const Head::Layer& layer) { return layer.disk == disk; });
    layers.erase(end, last.base());
  }
  return layers;
}

}  // namespace

Result<Head> catch_up(Storage& storage, const Format& format, Head head) {
  if (head.layers.empty()) return head;
  Head now = head;
  TRY_ASSIGN(const auto names, storage.list("snap"));
  for (const std::string& name : names) {
    const auto id = Id::parse(name);
    if (!id) continue;
    auto snapshot = Snapshot::load(storage, format, *id);
    if (!snapshot || (*snapshot)->manifest().branch != head.branch) continue;
    auto after = layers_after(storage, format, (*snapshot)->manifest(), head.layers);
    if (!after || after->size() >= now.layers.size()) continue;
    now.parent = *id;
    now.layers = *std::move(after);
  }
  return now;
}

}  // namespace snapshot
