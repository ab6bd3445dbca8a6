#include "snapshot/store/snapshot.h"

#include <fmt/format.h>

#include <cstring>

#include "snapshot/store/locks.h"

namespace snapshot {

namespace {
constexpr size_t kOpenFiles = 64;
// Read at first: the whole body of a manifest of usual size.
constexpr uint64_t kFirstRead = 16 << 10;

std::string space_text(Space space) {
  return space == kRamSpace ? std::string("memory") : fmt::format("disk {}", space - 1);
}
}  // namespace

base::Result<std::shared_ptr<const Snapshot>> Snapshot::load(Storage& storage, const Format& format,
                                                             const Id& id) {
  const std::string name = snapshot_name(id);
  auto file = storage.open(name, Storage::Access::kRead, Storage::Caching::kCached);
  if (!file) return std::unexpected(file.error().with("snapshot " + id.text()));
  TRY_ASSIGN(const uint64_t file_bytes, (*file)->size());
  std::vector<std::byte> body(std::min(file_bytes, kFirstRead));
  TRY((*file)->read(0, body));
  auto damaged = [&](const base::Error& error) { return std::unexpected(error.with(name)); };
  auto body_bytes = manifest_body_bytes(body);
  if (!body_bytes) return damaged(body_bytes.error());
  if (*body_bytes > file_bytes) return damaged(base::Error("manifest is cut short"));
  const size_t have = body.size();
  body.resize(*body_bytes);
  if (have < body.size()) TRY((*file)->read(have, std::span(body).subspan(have)));
  auto manifest = decode_manifest(format, body, file_bytes);
  if (!manifest) return damaged(manifest.error());
  if (manifest->id != id) {
    return damaged(base::Error("manifest is that of snapshot " + manifest->id.text()));
  }
  return std::shared_ptr<const Snapshot>(
      new Snapshot(storage, format, std::move(*manifest), std::move(*file), file_bytes));
}

Snapshot::Snapshot(Storage& storage, const Format& format, Manifest manifest,
                   std::shared_ptr<File> file, uint64_t manifest_bytes)
    : storage_(storage),
      format_(format),
      manifest_(std::move(manifest)),
      file_(std::move(file)),
      manifest_bytes_(manifest_bytes) {
  Slot slot = 0;
  for (const SpaceInfo& space : manifest_.spaces) {
    indexes_.push_back(
        std::make_unique<SpaceIndex>(storage, format, space, slot, unwritten(space.space)));
    slot = indexes_.back()->end_slot();
  }
}

Snapshot::~Snapshot() = default;

Slot Snapshot::unwritten(Space space) const {
  if (space == kRamSpace) return kSlotZero;
  const size_t disk = space - 1;
  const bool has_base = disk < manifest_.disks.size() && !manifest_.disks[disk].base.empty();
  return has_base ? kSlotBase : kSlotZero;
}

base::Result<base::SectionReader> Snapshot::sections() const {
  uint64_t offset = manifest_bytes_;
  for (const SectionInfo& section : manifest_.sections) {
    if (section.bytes > offset) return base::fail(snapshot_name(id()) + " is cut short");
    offset -= section.bytes;
  }
  std::vector<base::SectionReader::Section> sections;
  for (const SectionInfo& info : manifest_.sections) {
    std::vector<std::byte> data(info.bytes);
    TRY(file_->read(offset, data));
    if (format_.hash(data) != info.hash) {
      return base::fail(fmt::format("{} is damaged: section '{}' at byte {} has a wrong hash",
                                    snapshot_name(id()), info.tag, offset));
    }
    offset += info.bytes;
    sections.push_back({info.tag, info.version, std::move(data)});
  }
  return base::SectionReader(std::move(sections));
}

std::vector<Space> Snapshot::spaces() const {
  std::vector<Space> spaces;
  spaces.reserve(manifest_.spaces.size());
  for (const SpaceInfo& space : manifest_.spaces) spaces.push_back(space.space);
  return spaces;
}

const SpaceIndex* Snapshot::index(Space space) const {
  for (const auto& index : indexes_) {
    if (index->space() == space) return index.get();
  }
  return nullptr;
}

uint64_t Snapshot::pages(Space space) const {
  const SpaceIndex* found = index(space);
  return found ? found->pages() : 0;
}

base::Result<PageEntry> Snapshot::find(Space space, uint64_t page) const {
  if (page >= pages(space)) {
    return base::fail(fmt::format("snapshot has no page {} of {}", page, space_text(space)));
  }
  return index(space)->find(page);
}

base::Result<void> Snapshot::find_range(Space space, uint64_t first,
                                        std::span<PageEntry> into) const {
  const uint64_t count = pages(space);
  if (first > count || into.size() > count - first) {
    return base::fail(fmt::format("snapshot has no pages {} to {} of {}", first,
                                  first + into.size(), space_text(space)));
  }
  if (into.empty()) return {};
  return index(space)->find_range(first, into);
}

base::Result<SlotInfo> Snapshot::slot(Slot slot) const {
  for (const auto& index : indexes_) {
    if (slot >= index->first_slot() && slot < index->end_slot()) return index->slot(slot);
  }
  return base::fail("page is in no file of the store");
}

base::Result<std::unique_ptr<File>> Snapshot::open(Slot slot_number,
                                                   Storage::Caching caching) const {
  TRY_ASSIGN(const SlotInfo info, slot(slot_number));
  TRY_ASSIGN(auto file, storage_.open(info.name(), Storage::Access::kRead, caching));
  TRY_ASSIGN(const uint64_t bytes, file->size());
  if (bytes < info.bytes) {
    return base::fail(fmt::format("{} is damaged: it has {} bytes instead of {}", info.name(),
                                  bytes, info.bytes));
  }
  return file;
}

base::Result<std::unique_ptr<File>> Snapshot::open_direct(Slot slot) const {
  return open(slot, Storage::Caching::kDirect);
}

base::Result<std::shared_ptr<File>> Snapshot::file(Slot slot_number) const {
  {
    std::lock_guard lock(mutex_);
    if (auto found = by_slot_.find(slot_number); found != by_slot_.end()) return found->second;
  }
  TRY_ASSIGN(const SlotInfo info, slot(slot_number));
  const std::string name = info.name();
  {
    std::lock_guard lock(mutex_);
    if (auto found = files_.find(name); found != files_.end()) {
      by_slot_.emplace(slot_number, found->second);
      return found->second;
    }
  }
  TRY_ASSIGN(std::shared_ptr<File> file, open(slot_number, Storage::Caching::kCached));
  std::lock_guard lock(mutex_);
  // Descriptors are few. All go at once: those in use are kept by who uses them, and come back.
  if (files_.size() >= kOpenFiles) {
    files_.clear();
    by_slot_.clear();
  }
  files_.emplace(name, file);
  by_slot_.emplace(slot_number, file);
  return file;
}

base::Result<void> Snapshot::read_page(Space space, uint64_t page,
                                       std::span<std::byte, kPageBytes> into) const {
  TRY_ASSIGN(const PageEntry entry, find(space, page));
  return read_entry(space, entry, into);
}

base::Result<void> Snapshot::read_entry(Space space, const PageEntry& entry,
                                        std::span<std::byte, kPageBytes> into) const {
  if (entry.slot == kSlotZero) {
    std::memset(into.data(), 0, into.size());
    return {};
  }
  if (entry.slot == kSlotBase) {
    return base::fail(
        fmt::format("page {} of {} is in the disk's base image", entry.page, space_text(space)));
  }
  TRY_ASSIGN(auto file, file(entry.slot));
  TRY(file->read(entry.offset, into));
  return check(space, entry, into);
}

base::Result<void> Snapshot::check(Space space, const PageEntry& entry,
                                   std::span<const std::byte> content) const {
  if (format_.hash(content) == entry.hash) return {};
  TRY_ASSIGN(const SlotInfo info, slot(entry.slot));
  return base::fail(fmt::format("{} is damaged at byte {}: page {} of {} has a wrong hash",
                                info.name(), entry.offset, entry.page, space_text(space)));
}

base::Result<std::shared_ptr<Snapshot::Hold>> Snapshot::Hold::lock(std::shared_ptr<File> manifest) {
  // A prune locks what it may remove while it looks who needs it.
  TRY(wait_for_lock(*manifest, File::Lock::kShared));
  return std::shared_ptr<Hold>(new Hold(std::move(manifest)));
}

Snapshot::Hold::~Hold() {
  // Of a file that is ours alone the end is enough, and a forked process goes on holding.
  if (file_.use_count() > 1) (void)file_->unlock();
}

base::Result<std::shared_ptr<Snapshot::Hold>> Snapshot::hold() const {
  const std::string name = snapshot_name(id());
  TRY_ASSIGN(std::shared_ptr<File> file,
             storage_.open(name, Storage::Access::kRead, Storage::Caching::kCached));
  TRY_ASSIGN(auto hold, Hold::lock(std::move(file)));
  // Who removes it locks it first: if it has its name still, it stays.
  TRY_ASSIGN(const bool there, storage_.exists(name));
  if (!there) return base::fail(name + " was removed");
  return hold;
}

}  // namespace snapshot
