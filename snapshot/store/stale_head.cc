#include "snapshot/store/stale_head.h"

#include <algorithm>
#include <map>
#include <optional>
#include <span>
#include <vector>

#include "snapshot/store/run.h"
#include "snapshot/store/snapshot.h"

namespace snapshot {

using base::Result;

namespace {

// The layers whose blocks the snapshot names; an error where an index is damaged.
Result<std::vector<Head::Layer>> layers_of(Storage& storage, const Format& format,
                                           const Manifest& manifest) {
  std::vector<Head::Layer> layers;
  for (const SpaceInfo& space : manifest.spaces) {
    for (const RunInfo& run : space.runs) {
      RunReader reader(storage, format, space.space, run);
      TRY_ASSIGN(const std::span<const SlotInfo> slots, reader.slots());
      for (const SlotInfo& slot : slots) {
        if (slot.kind == SlotInfo::Kind::kLayer) layers.push_back({slot.disk, slot.id});
      }
    }
  }
  return layers;
}

}  // namespace

Result<Head> catch_up(Storage& storage, const Format& format, Head head) {
  if (head.layers.empty()) return head;
  // By what they continue: a branch has one line of snapshots.
  std::map<std::optional<Id>, std::shared_ptr<const Snapshot>> following;
  TRY_ASSIGN(const auto names, storage.list("snap"));
  for (const std::string& name : names) {
    const auto id = Id::parse(name);
    if (!id) continue;
    auto snapshot = Snapshot::load(storage, format, *id);
    if (!snapshot || (*snapshot)->manifest().branch != head.branch) continue;
    following[(*snapshot)->manifest().parent] = *snapshot;
  }
  for (auto next = following.find(head.parent); next != following.end();
       next = following.find(head.parent)) {
    auto sealed = layers_of(storage, format, next->second->manifest());
    if (!sealed) return head;
    head.parent = next->second->id();
    std::erase_if(head.layers, [&](const Head::Layer& layer) {
      return std::ranges::find(*sealed, layer) != sealed->end();
    });
    following.erase(next);
  }
  return head;
}

}  // namespace snapshot
