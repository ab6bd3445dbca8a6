#include "snapshot/store/commit.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <chrono>
#include <deque>

#include "snapshot/store/branch.h"
#include "snapshot/store/store.h"

namespace snapshot {

namespace {

// Memory for direct transfers.
struct alignas(kPageBytes) AlignedPage {
  std::array<std::byte, kPageBytes> bytes;
};

uint64_t now_ns() {
  const auto since_1970 = std::chrono::system_clock::now().time_since_epoch();
  return static_cast<uint64_t>(std::chrono::nanoseconds(since_1970).count());
}

bool stored(const PageEntry& entry) { return entry.slot != kSlotZero && entry.slot != kSlotBase; }

}  // namespace

Commit::Commit(Branch& branch, Kind kind, Id id)
    : branch_(branch), kind_(kind), id_(id), parent_(branch.parent()) {}

Commit::~Commit() { abandon(); }

void Commit::abandon() {
  if (!open_) return;
  open_ = false;
  slots_.clear();
  runs_.clear();
  for (const std::string& name : created_) (void)branch_.store_.storage().remove(name);
  branch_.commit_ended();
}

base::Result<Slot> Commit::create_pack(uint64_t estimate_bytes) {
  Storage& storage = branch_.store_.storage();
  TRY_ASSIGN(const Id id, branch_.new_file_id());
  TRY_ASSIGN(auto file, storage.create(pack_name(id), Storage::Caching::kDirect));
  auto page = std::make_unique<AlignedPage>();
  std::ranges::copy(encode_pack_header(branch_.store_.format(), id), page->bytes.begin());
  auto prepare = [&]() -> base::Result<void> {
    TRY(extend(*file, 0, kPackHeaderBytes + estimate_bytes));
    return file->write(0, page->bytes);
  };
  if (auto prepared = prepare(); !prepared) {
    (void)storage.remove(pack_name(id));
    return std::unexpected(prepared.error().with("space for the snapshot"));
  }
  created_.push_back(pack_name(id));
  File* opened = file.get();
  slots_.push_back({{SlotInfo::Kind::kPack, 0, id, 0}, std::move(file), opened, false, nullptr});
  return static_cast<Slot>(slots_.size() - 1);
}

Slot Commit::add_layer(uint32_t disk, const Id& layer, File& data, std::atomic<bool>* sync_failed) {
  slots_.push_back({{SlotInfo::Kind::kLayer, disk, layer, 0}, nullptr, &data, false, sync_failed});
  return static_cast<Slot>(slots_.size() - 1);
}

base::Result<void> Commit::check_entries(Space space, const Pages& pages) const {
  auto wrong = [&](const PageEntry& entry, const char* what) {
    return base::fail(fmt::format("page {} of space {}: {}", entry.page, space, what));
  };
  for (size_t i = 0; i < pages.entries.size(); ++i) {
    const PageEntry& entry = pages.entries[i];
    if (entry.page >= pages.total) return wrong(entry, "not in the space");
    if (i > 0 && pages.entries[i - 1].page >= entry.page) return wrong(entry, "out of order");
    if (entry.slot == kSlotBase && space == kRamSpace) return wrong(entry, "memory has no base");
    if (!stored(entry)) continue;
    if (entry.slot >= slots_.size()) return wrong(entry, "no such file");
    const bool pack = slots_[entry.slot].info.kind == SlotInfo::Kind::kPack;
    if (entry.offset % kPageBytes != 0 || (pack && entry.offset < kPackHeaderBytes)) {
      return wrong(entry, "impossible offset");
    }
  }
  return {};
}

base::Result<void> Commit::set_pages(Space space, uint64_t total_pages,
                                     std::vector<PageEntry> entries) {
  Pages pages{total_pages, std::move(entries)};
  if (space > kMaxDisks || total_pages > kMaxPages) return base::fail("page space is too large");
  const SpaceInfo* before = parent_ ? parent_->manifest().find(space) : nullptr;
  if (before && before->pages != total_pages) {
    return base::fail(fmt::format("page space {} had {} pages in the last snapshot and has {} now",
                                  space, before->pages, total_pages));
  }
  TRY(check_entries(space, pages));
  pages_[space] = std::move(pages);
  return {};
}

// Gives back the space that was not used, and a pack that nothing is in.
base::Result<void> Commit::settle_files() {
  std::vector<uint64_t> end(slots_.size(), 0);
  for (const auto& [space, pages] : pages_) {
    for (const PageEntry& entry : pages.entries) {
      if (stored(entry)) end[entry.slot] = std::max(end[entry.slot], entry.offset + kPageBytes);
    }
  }
  for (size_t i = 0; i < slots_.size(); ++i) {
    SlotFile& slot = slots_[i];
    slot.used = end[i] > 0;
    if (!slot.used && slot.owned) {
      TRY(branch_.store_.storage().remove(slot.info.name()));
      std::erase(created_, slot.info.name());
      continue;
    }
    TRY_ASSIGN(slot.info.bytes, slot.file->size());
    if (slot.info.bytes < end[i]) {
      return base::fail(fmt::format("{} ends at byte {}, before its last page", slot.info.name(),
                                    slot.info.bytes));
    }
    if (!slot.owned) continue;
    TRY(slot.file->truncate(end[i]));
    slot.info.bytes = end[i];
  }
  return {};
}

base::Result<File*> Commit::create_run(Id& id) {
  TRY_ASSIGN(id, branch_.new_file_id());
  TRY_ASSIGN(auto file, branch_.store_.storage().create(run_name(id), Storage::Caching::kCached));
  created_.push_back(run_name(id));
  new_run_names_ = true;
  runs_.push_back(std::move(file));
  return runs_.back().get();
}

base::Result<void> Commit::write_run(SpaceInfo& space, const Pages& pages, bool flat,
                                     Slot unwritten) {
  std::vector<Slot> number(slots_.size(), kSlotZero);
  std::vector<SlotInfo> slots;
  for (const PageEntry& entry : pages.entries) {
    if (!stored(entry) || number[entry.slot] != kSlotZero) continue;
    number[entry.slot] = static_cast<Slot>(slots.size());
    slots.push_back(slots_[entry.slot].info);
  }
  Id id;
  TRY_ASSIGN(File * file, create_run(id));
  RunWriter writer(branch_.store_.format(), *file, id, space.space,
                   flat ? RunInfo::Kind::kFlat : RunInfo::Kind::kDelta,
                   static_cast<uint32_t>(slots.size()));
  uint64_t next = 0;
  for (PageEntry entry : pages.entries) {
    for (; flat && next < entry.page; ++next) TRY(writer.add({next, 0, unwritten, 0}));
    next = entry.page + 1;
    if (stored(entry)) {
      entry.slot = number[entry.slot];
    } else {
      entry.hash = 0;
      entry.offset = 0;
    }
    TRY(writer.add(entry));
  }
  for (; flat && next < pages.total; ++next) TRY(writer.add({next, 0, unwritten, 0}));
  TRY_ASSIGN(const RunInfo run, writer.finish(slots));
  run_bytes_ += run.bytes;
  space.runs.insert(space.runs.begin(), run);
  return {};
}

// Where nobody merged in the background for long.
base::Result<void> Commit::merge_inline(SpaceInfo& space, Slot unwritten) {
  const size_t count = runs_to_merge(space.runs);
  assert(count > 1);
  Id id;
  TRY_ASSIGN(File * file, create_run(id));
  TRY_ASSIGN(const RunInfo run, merge_runs(branch_.store_.format(), *parent_->index(space.space),
                                           count, *file, id, unwritten));
  space.runs.erase(space.runs.begin(), space.runs.begin() + static_cast<ptrdiff_t>(count));
  space.runs.insert(space.runs.begin(), run);
  return {};
}

base::Result<void> Commit::add_space(Manifest& manifest, Space space, Slot unwritten) {
  const SpaceInfo* before = parent_ ? parent_->manifest().find(space) : nullptr;
  auto found = pages_.find(space);
  const bool inherits = before && !(kind_ == Kind::kFull && space == kRamSpace);
  if (!inherits && found == pages_.end()) {
    return base::fail("a full snapshot needs the pages of memory");
  }
  SpaceInfo info{space, inherits ? before->pages : found->second.total, {}};
  if (inherits) {
    info.runs = before->runs;
    if (auto merged = branch_.merged(space, parent_->id())) {
      const auto first = info.runs.begin();
      info.runs.erase(first, first + static_cast<ptrdiff_t>(merged->replaced));
      info.runs.insert(info.runs.begin(), merged->run);
      new_run_names_ = true;
    }
  }
  if (found != pages_.end() && !found->second.entries.empty()) {
    const Pages& pages = found->second;
    // Every page is new: what is older is not looked at any more.
    if (pages.entries.size() == pages.total) info.runs.clear();
    if (info.runs.size() >= kMaxRuns) TRY(merge_inline(info, unwritten));
    const bool flat = info.runs.empty() && flat_is_better(pages.entries.size(), pages.total);
    TRY(write_run(info, pages, flat, unwritten));
  }
  manifest.spaces.push_back(std::move(info));
  return {};
}

void Commit::count_pages(Manifest& manifest) const {
  for (const auto& [space, pages] : pages_) {
    const auto count = static_cast<uint64_t>(std::ranges::count_if(pages.entries, stored));
    (space == kRamSpace ? manifest.ram_pages : manifest.disk_pages) += count;
    if (space != kRamSpace) continue;
    manifest.zero_pages =
        (kind_ == Kind::kFull ? pages.total : pages.entries.size()) - manifest.ram_pages;
  }
  manifest.stored_bytes = (manifest.ram_pages + manifest.disk_pages) * kPageBytes + run_bytes_;
  for (const SlotFile& slot : slots_) {
    if (slot.owned && slot.used) manifest.stored_bytes += kPackHeaderBytes;
  }
}

base::Result<std::shared_ptr<const Snapshot>> Commit::finish(const base::SectionWriter& sections,
                                                             const SnapshotNotes& notes) {
  assert(open_);
  TRY(settle_files());
  Manifest manifest;
  manifest.id = id_;
  if (parent_) manifest.parent = parent_->id();
  manifest.branch = branch_.id();
  manifest.kind = kind_;
  manifest.vm_name = branch_.vm_name();
  manifest.time_ns = notes.time_ns ? notes.time_ns : now_ns();
  // "The newest" is to be the last of its chain also where the host's clock was set back.
  if (parent_) manifest.time_ns = std::max(manifest.time_ns, parent_->manifest().time_ns + 1);
  manifest.time_ns = std::min(manifest.time_ns, kLatestTime);
  manifest.pause_ns = notes.pause_ns;
  manifest.memory = notes.memory;
  manifest.disks = notes.disks;
  manifest.config = notes.config;
  auto unwritten = [&](Space space) {
    return space != kRamSpace && space <= notes.disks.size() && !notes.disks[space - 1].base.empty()
               ? kSlotBase
               : kSlotZero;
  };
  std::vector<Space> spaces;
  if (parent_) spaces = parent_->spaces();
  for (const auto& [space, pages] : pages_) spaces.push_back(space);
  std::ranges::sort(spaces);
  const auto twice = std::ranges::unique(spaces);
  spaces.erase(twice.begin(), twice.end());
  for (const Space space : spaces) TRY(add_space(manifest, space, unwritten(space)));
  count_pages(manifest);

  Storage& storage = branch_.store_.storage();
  const std::string temporary = temporary_name(branch_.id(), id_);
  const std::vector<std::byte> bytes = encode_manifest(branch_.store_.format(), manifest, sections);
  // What we cannot read back is not to be committed.
  TRY_ASSIGN(const uint32_t body_bytes, manifest_body_bytes(bytes));
  TRY(decode_manifest(branch_.store_.format(), std::span(bytes).first(body_bytes), bytes.size()));
  TRY_ASSIGN(std::shared_ptr<File> file, storage.create(temporary, Storage::Caching::kCached));
  created_.push_back(temporary);
  TRY(file->write(0, bytes));
  TRY(make_durable(*file));
  return publish(std::move(manifest), std::move(file), bytes.size());
}

// Step 2: everything the manifest names, and itself, in one batch. A failed fsync is never
// repeated: the kernel may have dropped the data and say "done" the second time.
base::Result<void> Commit::make_durable(File& manifest) {
  Storage& storage = branch_.store_.storage();
  std::vector<File*> files = {&manifest};
  std::vector<std::atomic<bool>*> sync_failed = {nullptr};
  bool new_pack = false;
  for (const SlotFile& slot : slots_) {
    // A layer that no entry names leaves HEAD with this commit as well; nothing is lost with it.
    if (!slot.used) continue;
    new_pack |= slot.owned != nullptr;
    files.push_back(slot.file);
    sync_failed.push_back(slot.sync_failed);
  }
  for (const auto& run : runs_) files.push_back(run.get());
  sync_failed.resize(files.size());

  std::deque<IoQueue::Operation> operations(files.size());
  TRY_ASSIGN(auto queue,
             storage.make_queue(static_cast<unsigned>(std::max<size_t>(files.size(), 8))));
  for (size_t i = 0; i < files.size(); ++i) TRY(queue->sync(operations[i], *files[i]));
  if (auto submitted = queue->submit(); !submitted) {
    // Some may have begun, and nobody hears what they say.
    for (std::atomic<bool>* failed : sync_failed) {
      if (failed) *failed = true;
    }
    return submitted;
  }
  // The directories meanwhile. Layers got their names, durably, when they were made.
  base::Result<void> directories;
  if (new_pack) directories = storage.sync_directory("packs");
  if (new_run_names_ && directories) directories = storage.sync_directory("runs");
  while (queue->wait_completion()) {
  }
  for (size_t i = 0; i < files.size(); ++i) {
    bool failed = operations[i].pending || operations[i].result < 0;
    if (failed && sync_failed[i]) *sync_failed[i] = true;
  }
  TRY(directories);
  for (size_t i = 0; i < files.size(); ++i) {
    if (operations[i].pending) return base::fail("fsync of " + files[i]->name() + " did not end");
    if (operations[i].result < 0) {
      return base::fail("fsync of " + files[i]->name(), -operations[i].result);
    }
    if (sync_failed[i] && *sync_failed[i]) {
      return base::fail(files[i]->name() + ": what the guest flushed may be lost", EIO);
    }
  }
  return {};
}

// Steps 3 to 5.
base::Result<std::shared_ptr<const Snapshot>> Commit::publish(Manifest manifest,
                                                              std::shared_ptr<File> file,
                                                              uint64_t manifest_bytes) {
  Store& store = branch_.store_;
  Storage& storage = store.storage();
  // Until the new snapshot is held nobody may decide what is in use.
  TRY_ASSIGN(auto store_lock, store.lock(File::Lock::kShared));
  TRY_ASSIGN(auto hold, Snapshot::Hold::lock(file));
  const std::string name = snapshot_name(id_);
  TRY(storage.rename(temporary_name(branch_.id(), id_), name));
  // From here on a power cut may leave the snapshot; all it needs is there. So where this fails,
  // its files stay behind: a recovery removes them if its name is not there then.
  created_.clear();
  if (auto synced = storage.sync_directory("snap"); !synced) {
    (void)storage.remove(name);
    return std::unexpected(synced.error());
  }
  std::vector<Head::Layer> sealed;
  for (const SlotFile& slot : slots_) {
    if (!slot.owned) sealed.push_back({slot.info.disk, slot.info.id});
  }
  std::shared_ptr<const Snapshot> snapshot(
      new Snapshot(storage, store.format(), std::move(manifest), std::move(file), manifest_bytes));
  branch_.committed(snapshot, std::move(hold), sealed);
  open_ = false;
  branch_.commit_ended();
  return snapshot;
}

}  // namespace snapshot
