// The store: a directory of snapshots of any number of machines. FORMAT.md describes its files.
//
// Opened by every program that uses it; any number at once, this object from any thread. What is
// made through it (snapshots, branches) must be gone before it.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "snapshot/storage.h"
#include "snapshot/store/branch.h"
#include "snapshot/store/commit.h"
#include "snapshot/store/prune.h"
#include "snapshot/store/recovery.h"
#include "snapshot/store/snapshot.h"
#include "snapshot/store/verify.h"

namespace snapshot {

// A row of list().
struct SnapshotInfo {
  Id id;
  std::string damage;  // empty, or why the rest is not known
  std::optional<Id> parent;
  Id branch;
  std::string vm_name;
  Kind kind = Kind::kFull;
  uint64_t time_ns = 0, pause_ns = 0;
  uint64_t ram_pages = 0, disk_pages = 0, zero_pages = 0;
  uint64_t bytes = 0;  // written for this snapshot: packs, runs, manifest
};

struct HeadInfo {
  Id branch;
  bool alive = false;        // its machine runs
  std::string vm_name;       // where it runs, or has a HEAD
  std::string damage;        // empty, or why its HEAD cannot be read
  std::optional<Head> head;  // none: it has, or left, no disk layers
};

// Where a store's ids and its seed come from. Two calls never give the same; any thread.
using IdSource = std::function<base::Result<Id>()>;

class Store {
 public:
  // In an empty directory. An interrupted creation leaves what create() and open_or_create()
  // complete.
  static base::Result<std::unique_ptr<Store>> create(std::unique_ptr<Storage> storage,
                                                     IdSource ids = Id::random);
  // Reads FORMAT and nothing else: as fast for a thousand snapshots as for one. recover() is a call
  // of its own, which a branch's first begin() makes.
  static base::Result<std::unique_ptr<Store>> open(std::unique_ptr<Storage> storage);
  static base::Result<std::unique_ptr<Store>> open(const std::string& path);
  static base::Result<std::unique_ptr<Store>> open_or_create(std::unique_ptr<Storage> storage);
  // Makes the directory where it does not exist (not its parents).
  static base::Result<std::unique_ptr<Store>> open_or_create(const std::string& path);

  Storage& storage() const { return *storage_; }
  base::Result<Id> new_id() const { return ids_(); }
  const Format& format() const { return format_; }
  PageHash hash(std::span<const std::byte> page) const { return format_.hash(page); }

  // Oldest first, each after its parent; damaged manifests, whose age nobody knows, are the last.
  base::Result<std::vector<SnapshotInfo>> list() const;
  // The snapshot whose id begins with `text`, the newest one where it is empty; an error where that
  // may be one that is damaged. The error lists what there is.
  base::Result<Id> resolve(std::string_view text) const;
  base::Result<std::shared_ptr<const Snapshot>> load(const Id& id) const;

  // A machine's place, locked while the object lives. `parent`: what it was restored from. Where
  // that is loaded already, Branch::create() takes it.
  base::Result<std::unique_ptr<Branch>> create_branch(std::optional<Id> parent,
                                                      std::string_view vm_name);
  base::Result<std::vector<HeadInfo>> heads() const;
  // Forgets a branch whose machine is gone, and its layers since the last snapshot: what is freed.
  base::Result<Garbage> remove_head(const Id& branch);

  base::Result<PruneReport> prune(const PruneOptions& options) {
    return prune_store(*this, options);
  }
  base::Result<Garbage> recover() { return recover_store(*this); }
  base::Result<VerifyReport> verify(const std::vector<Id>& ids, const Progress& progress) {
    return verify_store(*this, ids, progress);
  }

  // The store's lock, held as long as the file is open. Commits share it; recovery and prune, which
  // decide what nobody names, exclude them. Waits for others, a minute at most.
  base::Result<std::unique_ptr<File>> lock(File::Lock mode) const;
  // Null where it is not free.
  base::Result<std::unique_ptr<File>> try_lock(File::Lock mode) const;

 private:
  base::Result<Id> newest(const std::vector<SnapshotInfo>& infos) const;
  Store(std::unique_ptr<Storage> storage, const Format& format, IdSource ids = Id::random)
      : storage_(std::move(storage)), format_(format), ids_(std::move(ids)) {}

  std::unique_ptr<Storage> storage_;
  const Format format_;
  const IdSource ids_;
};

}  // namespace snapshot
