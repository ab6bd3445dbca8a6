#include "snapshot/store/store.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <set>
#include <tuple>

#include "snapshot/store/locks.h"
#include "snapshot/store/stale_head.h"
#include "vmm/base/log.h"
#include "vmm/base/path.h"

namespace snapshot {

namespace {

constexpr const char* kLockName = "LOCK";
constexpr const char* kNewFormatName = "tmp/FORMAT";
constexpr std::array kDirectories = {"heads", "layers", "packs", "runs", "snap", "tmp"};
constexpr size_t kListedIds = 20;

base::Result<Format> new_format(const IdSource& ids) {
  Format format;
  TRY_ASSIGN(format.uuid, ids());
  TRY_ASSIGN(const Id random, ids());
  format.seed = random.low;
  return format;
}

base::Result<void> refuse_foreign(Storage& storage) {
  TRY_ASSIGN(const auto names, storage.list(kRoot));
  for (const std::string& name : names) {
    if (name != kFormatName && name != kLockName &&
        std::ranges::find(kDirectories, name) == kDirectories.end()) {
      return base::fail(fmt::format("{} is not empty and not a snapshot store: it holds '{}'",
                                    storage.path(), name));
    }
  }
  return {};
}

// A shared lock needs no more than reading: a store that cannot be written can be verified.
base::Result<std::unique_ptr<File>> open_lock(Storage& storage, File::Lock mode) {
  const auto access =
      mode == File::Lock::kShared ? Storage::Access::kRead : Storage::Access::kWrite;
  return storage.open(kLockName, access, Storage::Caching::kCached);
}

// Everything a store has but FORMAT, which makes it one. Each step may find its work done.
base::Result<std::unique_ptr<File>> prepare(Storage& storage) {
  for (const char* directory : kDirectories) TRY(storage.make_directory(directory));
  TRY_ASSIGN(const bool has_lock, storage.exists(kLockName));
  if (!has_lock) {
    auto file = storage.create(kLockName, Storage::Caching::kCached);
    if (!file && file.error().os_error() != EEXIST) return file;
  }
  TRY_ASSIGN(auto lock, open_lock(storage, File::Lock::kExclusive));
  TRY(wait_for_lock(*lock, File::Lock::kExclusive));
  TRY(storage.sync_directory(kRoot));
  return lock;
}

// With the lock held, where FORMAT is not there.
base::Result<void> write_format(Storage& storage, const Format& format) {
  TRY_ASSIGN(const bool left_over, storage.exists(kNewFormatName));
  if (left_over) TRY(storage.remove(kNewFormatName));
  TRY_ASSIGN(auto file, storage.create(kNewFormatName, Storage::Caching::kCached));
  TRY(file->write(0, encode_format(format)));
  TRY(file->sync());
  TRY(storage.rename(kNewFormatName, kFormatName));
  return storage.sync_directory(kRoot);
}

base::Result<Format> read_format(Storage& storage) {
  auto file = storage.open(kFormatName, Storage::Access::kRead, Storage::Caching::kCached);
  if (!file) {
    if (file.error().os_error() != ENOENT) return std::unexpected(file.error());
    return base::fail(storage.path() + " is not a snapshot store: it has no FORMAT");
  }
  TRY_ASSIGN(const uint64_t size, (*file)->size());
  if (size != kFormatBytes) return base::fail(storage.path() + ": FORMAT is damaged");
  std::array<std::byte, kFormatBytes> bytes;
  TRY((*file)->read(0, bytes));
  auto format = decode_format(bytes);
  if (!format) return std::unexpected(format.error().with(storage.path()));
  return format;
}

// What the machine that holds the branch's lock wrote into it; empty where it ends just now.
std::string machine_name(Storage& storage, const Id& branch) {
  auto file =
      storage.open(branch_lock_name(branch), Storage::Access::kRead, Storage::Caching::kCached);
  if (!file) return {};
  std::string name(std::min<uint64_t>((*file)->size().value_or(0), kMaxNameBytes), '\0');
  if (!(*file)->read(0, std::as_writable_bytes(std::span(name)))) return {};
  return name;
}

SnapshotInfo info_of(const Snapshot& snapshot, uint64_t manifest_bytes) {
  const Manifest& from = snapshot.manifest();
  SnapshotInfo info;
  info.id = from.id;
  info.parent = from.parent;
  info.branch = from.branch;
  info.vm_name = from.vm_name;
  info.kind = from.kind;
  info.time_ns = from.time_ns;
  info.pause_ns = from.pause_ns;
  info.ram_pages = from.ram_pages;
  info.disk_pages = from.disk_pages;
  info.zero_pages = from.zero_pages;
  info.bytes = from.stored_bytes + manifest_bytes;
  return info;
}

}  // namespace

base::Result<std::unique_ptr<Store>> Store::create(std::unique_ptr<Storage> storage, IdSource ids) {
  TRY(refuse_foreign(*storage));
  TRY_ASSIGN(auto lock, prepare(*storage));
  TRY_ASSIGN(const bool there, storage->exists(kFormatName));
  if (there) return base::fail(storage->path() + " is a snapshot store already");
  TRY_ASSIGN(const Format format, new_format(ids));
  TRY(write_format(*storage, format));
  return std::unique_ptr<Store>(new Store(std::move(storage), format, std::move(ids)));
}

base::Result<std::unique_ptr<Store>> Store::open(std::unique_ptr<Storage> storage) {
  TRY_ASSIGN(const Format format, read_format(*storage));
  return std::unique_ptr<Store>(new Store(std::move(storage), format));
}

base::Result<std::unique_ptr<Store>> Store::open(const std::string& path) {
  TRY_ASSIGN(auto storage, open_storage(path));
  return open(std::move(storage));
}

base::Result<std::unique_ptr<Store>> Store::open_or_create(std::unique_ptr<Storage> storage) {
  TRY_ASSIGN(const bool complete, storage->exists(kFormatName));
  if (complete) return open(std::move(storage));
  TRY(refuse_foreign(*storage));
  TRY_ASSIGN(auto lock, prepare(*storage));
  // Somebody else may have been first.
  TRY_ASSIGN(const bool there, storage->exists(kFormatName));
  if (there) return open(std::move(storage));
  TRY_ASSIGN(const Format format, new_format(Id::random));
  TRY(write_format(*storage, format));
  return std::unique_ptr<Store>(new Store(std::move(storage), format));
}

base::Result<std::unique_ptr<Store>> Store::open_or_create(const std::string& path) {
  if (mkdir(path.c_str(), 0700) == 0) {
    // Its name is to be as durable as what will be in it.
    const std::string parent = base::parent_directory(path);
    TRY_ASSIGN(base::Fd directory, base::open_file(parent, O_RDONLY | O_DIRECTORY));
    if (fsync(directory.get()) != 0) return base::fail_errno("fsync " + parent);
  } else if (errno != EEXIST) {
    return base::fail_errno("make store " + path);
  }
  TRY_ASSIGN(auto storage, open_storage(path));
  return open_or_create(std::move(storage));
}

base::Result<std::unique_ptr<File>> Store::lock(File::Lock mode) const {
  TRY_ASSIGN(auto file, open_lock(*storage_, mode));
  TRY(wait_for_lock(*file, mode));
  return file;
}

base::Result<std::unique_ptr<File>> Store::try_lock(File::Lock mode) const {
  TRY_ASSIGN(auto file, open_lock(*storage_, mode));
  TRY_ASSIGN(const bool locked, file->try_lock(mode));
  if (!locked) file.reset();
  return file;
}

base::Result<std::vector<SnapshotInfo>> Store::list() const {
  TRY_ASSIGN(const auto names, storage_->list("snap"));
  std::vector<SnapshotInfo> infos;
  for (const std::string& name : names) {
    const auto id = Id::parse(name);
    if (!id) continue;  // not ours
    auto snapshot = load(*id);
    if (snapshot) {
      infos.push_back(info_of(**snapshot, (*snapshot)->manifest_bytes()));
    } else if (snapshot.error().os_error() != ENOENT) {  // else pruned meanwhile
      infos.emplace_back().id = *id;
      infos.back().damage = snapshot.error().text();
    }
  }
  std::ranges::sort(infos, {}, [](const SnapshotInfo& info) {
    return std::tuple(!info.damage.empty(), info.time_ns, info.id);
  });
  return infos;
}

// Of a damaged manifest, whose own time cannot be believed; the end of time where it is not known.
uint64_t written_ns(Storage& storage, const Id& id) {
  auto file = storage.open(snapshot_name(id), Storage::Access::kRead, Storage::Caching::kCached);
  return file ? (*file)->modified_ns().value_or(kLatestTime) : kLatestTime;
}

// The last of what list() says, unless one that is damaged may be newer: nobody is to go on with
// something old and not know it.
base::Result<Id> Store::newest(const std::vector<SnapshotInfo>& infos) const {
  if (infos.empty()) return base::fail(storage_->path() + " has no snapshot");
  const auto whole = std::ranges::find(infos.rbegin(), infos.rend(), "", &SnapshotInfo::damage);
  for (const SnapshotInfo& info : infos) {
    if (info.damage.empty()) continue;
    if (std::ranges::find(infos, info.id, &SnapshotInfo::parent) != infos.end()) continue;
    if (whole != infos.rend() && written_ns(*storage_, info.id) < whole->time_ns) {
      // By the host's clock, which may have been set: not without a word.
      base::log_warning("{} is damaged and seems older than {}, the newest whole one: {}",
                        info.id.text(), whole->id.text(), info.damage);
      continue;
    }
    const std::string id = info.id.text(), path = storage_->path();
    const std::string other =
        whole == infos.rend() ? "" : fmt::format("; the newest whole one is {}", whole->id.text());
    return base::fail(fmt::format(
        "the newest snapshot may be {}, which is damaged ({}): name the one to use, as in "
        "{}@ID, or remove that one: minivmm prune {} --delete {}{}",
        id, info.damage, path, path, id, other));
  }
  return whole->id;
}

base::Result<Id> Store::resolve(std::string_view text) const {
  if (auto whole = Id::parse(text)) {
    TRY_ASSIGN(const bool there, storage_->exists(snapshot_name(*whole)));
    if (there) return *whole;
  }
  if (!text.empty()) {
    // Found by its name alone, however many others there are.
    TRY_ASSIGN(auto names, storage_->list("snap"));
    std::erase_if(names, [&](const auto& name) { return !name.starts_with(text); });
    if (names.size() == 1) {
      if (auto id = Id::parse(names[0])) return *id;
    }
  }
  TRY_ASSIGN(const auto infos, list());
  if (text.empty()) return newest(infos);
  std::vector<const SnapshotInfo*> found;
  for (const SnapshotInfo& info : infos) {
    if (info.id.text().starts_with(text)) found.push_back(&info);
  }
  if (found.size() == 1) return found.back()->id;
  if (infos.empty()) return base::fail(storage_->path() + " has no snapshot");
  const bool none = found.empty();
  if (none) {
    for (const SnapshotInfo& info : infos) found.push_back(&info);
  }
  std::string ids;
  const size_t first = found.size() > kListedIds ? found.size() - kListedIds : 0;
  for (size_t i = first; i < found.size(); ++i) {
    ids += (i == first ? "" : ", ") + found[i]->id.text() +
           (found[i]->damage.empty() ? "" : " (damaged)");
  }
  return base::fail(fmt::format("{}: {} snapshot begins with '{}'; there {} {}{}", storage_->path(),
                                none ? "no" : "more than one", text,
                                found.size() == 1 ? "is" : "are", first > 0 ? "…, " : "", ids));
}

base::Result<std::shared_ptr<const Snapshot>> Store::load(const Id& id) const {
  return Snapshot::load(*storage_, format_, id);
}

base::Result<std::unique_ptr<Branch>> Store::create_branch(std::optional<Id> parent,
                                                           std::string_view vm_name) {
  std::shared_ptr<const Snapshot> snapshot;
  if (parent) {
    TRY_ASSIGN(snapshot, load(*parent));
  }
  return Branch::create(*this, std::move(snapshot), vm_name);
}

base::Result<std::vector<HeadInfo>> Store::heads() const {
  TRY_ASSIGN(const auto names, storage_->list("heads"));
  std::set<Id> branches;
  for (std::string_view name : names) {
    if (name.ends_with(kBranchLockSuffix)) name.remove_suffix(kBranchLockSuffix.size());
    if (const auto branch = Id::parse(name)) branches.insert(*branch);
  }
  std::vector<HeadInfo> heads;
  for (const Id& branch : branches) {
    HeadInfo info;
    info.branch = branch;
    TRY_ASSIGN(info.alive, branch_is_alive(*storage_, branch));
    if (auto head = read_head(*storage_, format_, branch)) {
      TRY_ASSIGN(info.head, catch_up(*storage_, format_, std::move(*head)));
      info.vm_name = info.head->vm_name;
    } else if (head.error().os_error() != ENOENT) {
      info.damage = head.error().text();
    } else if (info.alive) {
      info.vm_name = machine_name(*storage_, branch);
    }
    heads.push_back(std::move(info));
  }
  return heads;
}

base::Result<Garbage> Store::remove_head(const Id& branch) {
  {
    TRY_ASSIGN(auto store_lock, lock(File::Lock::kExclusive));
    TRY_ASSIGN(const bool alive, branch_is_alive(*storage_, branch));
    if (alive) return base::fail("the machine of branch " + branch.text() + " runs");
    // Durably before its layers go: a HEAD that names missing ones would be damage.
    for (const std::string& name : {head_name(branch), branch_lock_name(branch)}) {
      TRY_ASSIGN(const bool there, storage_->exists(name));
      if (there) TRY(storage_->remove(name));
    }
    TRY(storage_->sync_directory("heads"));
  }
  return recover();
}

}  // namespace snapshot
