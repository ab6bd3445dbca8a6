#include "snapshot/store/prune.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>
#include <string>

#include "snapshot/store/store.h"
#include "snapshot/working_set.h"

namespace snapshot {

namespace {

constexpr uint64_t kLeastHole = (64 << 10) / kPageBytes;  // pages

base::Result<std::set<Id>> choose(const std::vector<SnapshotInfo>& infos,
                                  const PruneOptions& options) {
  std::set<Id> victims(options.remove.begin(), options.remove.end());
  for (const Id& id : victims) {
    if (std::ranges::find(infos, id, &SnapshotInfo::id) == infos.end()) {
      return base::fail("the store has no snapshot " + id.text());
    }
  }
  if (options.keep) {
    std::map<Id, size_t> kept;  // by branch
    for (auto info = infos.rbegin(); info != infos.rend(); ++info) {
      if (!info->damage.empty() || victims.contains(info->id)) continue;
      if (options.branch && info->branch != *options.branch) continue;
      if (kept[info->branch]++ >= *options.keep) victims.insert(info->id);
    }
  }
  for (const Id& id : options.keep_ids) victims.erase(id);
  return victims;
}

// What removed snapshots named. It was committed once, so no machine is still writing it.
struct Left {
  std::set<std::string> files;
  std::set<Id> packs;

  // As far as it can be read.
  void add(const Snapshot& snapshot) {
    for (const auto& index : snapshot.indexes()) {
      for (const auto& run : index->runs()) {
        files.insert(run_name(run->info().id));
        const auto slots = run->slots();
        if (!slots) continue;
        for (const SlotInfo& slot : *slots) {
          files.insert(slot.name());
          if (slot.kind == SlotInfo::Kind::kPack) packs.insert(slot.id);
        }
      }
    }
  }
};

struct Victim {
  const SnapshotInfo* info;
  std::unique_ptr<File> lock;  // none where somebody holds or continues it
};

// The layers and logs that go with a HEAD, as far as they can be looked at.
uint64_t layer_bytes(Storage& storage, const Head& head) {
  uint64_t bytes = 0;
  for (const Head::Layer& layer : head.layers) {
    for (const std::string& name :
         {layer_name(layer.disk, layer.id), layer_log_name(layer.disk, layer.id)}) {
      auto file = storage.open(name, Storage::Access::kRead, Storage::Caching::kCached);
      if (file) bytes += (*file)->disk_bytes().value_or(0);
    }
  }
  return bytes;
}

// Gives back the parts of packs in which no index has a page. What a kept snapshot's runs name is
// live even where a newer run hides it, so that every entry of every run stays readable.
base::Result<void> punch_dead_parts(Store& store, const References& references,
                                    const std::set<Id>& packs) {
  struct Live {
    uint64_t bytes = 0;
    std::vector<bool> pages;
  };
  std::map<Id, Live> live;
  for (const auto& [id, space_and_run] : references.runs) {
    const auto& [space, run] = space_and_run;
    TRY_ASSIGN(const auto slots, run->slots());
    std::vector<Live*> by_slot(slots.size(), nullptr);
    bool any = false;
    for (size_t i = 0; i < slots.size(); ++i) {
      if (slots[i].kind != SlotInfo::Kind::kPack || !packs.contains(slots[i].id)) continue;
      Live& pack = live[slots[i].id];
      if (pack.pages.empty()) {
        // Not what the run says: it may be anything.
        TRY_ASSIGN(auto file, store.storage().open(pack_name(slots[i].id), Storage::Access::kRead,
                                                   Storage::Caching::kCached));
        TRY_ASSIGN(pack.bytes, file->size());
        pack.pages.resize(pack.bytes / kPageBytes, false);
        if (!pack.pages.empty()) pack.pages[0] = true;  // the header
      }
      by_slot[i] = &pack;
      any = true;
    }
    if (!any) continue;
    TRY(run->for_each(0, kMaxPages + 1, [&](const PageEntry& entry) {
      if (entry.slot >= by_slot.size() || !by_slot[entry.slot]) return;
      std::vector<bool>& pages = by_slot[entry.slot]->pages;
      if (entry.offset / kPageBytes < pages.size()) pages[entry.offset / kPageBytes] = true;
    }));
  }
  for (const auto& [id, pack] : live) {
    const auto dead = static_cast<uint64_t>(std::ranges::count(pack.pages, false));
    if (dead * 4 < pack.pages.size()) continue;
    TRY_ASSIGN(auto file, store.storage().open(pack_name(id), Storage::Access::kWrite,
                                               Storage::Caching::kCached));
    for (auto begin = pack.pages.begin(); begin != pack.pages.end();) {
      begin = std::find(begin, pack.pages.end(), false);
      const auto end = std::find(begin, pack.pages.end(), true);
      const auto first = static_cast<uint64_t>(begin - pack.pages.begin());
      const auto count = static_cast<uint64_t>(end - begin);
      if (count >= kLeastHole) TRY(file->punch(first * kPageBytes, count * kPageBytes));
      begin = end;
    }
  }
  return {};
}

}  // namespace

base::Result<PruneReport> prune_store(Store& store, const PruneOptions& options) {
  Storage& storage = store.storage();
  TRY_ASSIGN(auto lock, store.lock(File::Lock::kExclusive));
  TRY_ASSIGN(const auto infos, store.list());
  TRY_ASSIGN(const std::set<Id> chosen, choose(infos, options));
  // Locked before HEADs are read: whoever makes one holds the snapshot that it continues.
  std::vector<Victim> victims;
  for (const SnapshotInfo& info : infos) {
    if (!chosen.contains(info.id)) continue;
    TRY_ASSIGN(auto file, storage.open(snapshot_name(info.id), Storage::Access::kWrite,
                                       Storage::Caching::kCached));
    TRY_ASSIGN(const bool locked, file->try_lock(File::Lock::kExclusive));
    victims.push_back({&info, locked ? std::move(file) : nullptr});
  }
  TRY_ASSIGN(const auto heads, store.heads());

  PruneReport report;
  Left left;
  auto forgotten = [&](const HeadInfo& head) {
    return std::ranges::find(options.forgotten, head.branch) != options.forgotten.end();
  };
  for (const HeadInfo& head : heads) {
    if (victims.empty() || head.damage.empty() || forgotten(head)) continue;
    return base::fail(fmt::format(
        "{}: no snapshot is removed while it cannot be read which one this machine continued; "
        "prune --head {} forgets it",
        head.damage, head.branch.text()));
  }
  for (Victim& victim : victims) {
    // Layers stand on it, be their machine alive or not.
    const bool continued = std::ranges::any_of(heads, [&](const HeadInfo& head) {
      return head.head && head.head->parent == victim.info->id && !forgotten(head);
    });
    if (continued) victim.lock.reset();
  }
  for (const Victim& victim : victims) {
    const SnapshotInfo& info = *victim.info;
    if (!victim.lock) {
      report.in_use.push_back(info.id);
      continue;
    }
    if (options.dry_run) {
      report.removed.push_back(info.id);
      report.freed_bytes += info.bytes;
      continue;
    }
    // That no HEAD continues it is to be durable first, and so are the snapshots that stay.
    if (report.removed.empty()) TRY(settle_names(storage));
    if (auto snapshot = store.load(info.id)) left.add(**snapshot);
    TRY(storage.remove(snapshot_name(info.id)));
    (void)remove_working_set(storage, info.id);  // advice, to nobody now
    report.removed.push_back(info.id);
  }
  if (options.dry_run) {
    for (const HeadInfo& head : heads) {
      if (head.head && forgotten(head)) report.freed_bytes += layer_bytes(storage, *head.head);
    }
    return report;
  }
  victims.clear();  // whoever waits for one sees that its name is gone
  // Before anything they name goes: a manifest that a power cut brings back is to be whole.
  if (!report.removed.empty()) TRY(storage.sync_directory("snap"));

  auto references = References::collect(store);
  if (!references) {
    return std::unexpected(references.error().with(
        "snapshots are removed, but no space is freed while something is damaged"));
  }
  // A HEAD that was durable then may be gone since, and not durably.
  for (const HeadInfo& head : heads) {
    if (head.head) references->add(*head.head);
  }
  TRY_ASSIGN(const Garbage garbage,
             remove_unnamed(store, *references, !report.removed.empty(), left.files));
  report.freed_bytes = garbage.bytes;
  if (!report.removed.empty()) {
    // Space that is not given back is no failure: some file systems cannot.
    (void)punch_dead_parts(store, *references, left.packs);
  }
  return report;
}

}  // namespace snapshot
