#include "snapshot/store/branch.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>

#include "snapshot/store/commit.h"
#include "snapshot/store/locks.h"
#include "snapshot/store/store.h"

namespace snapshot {

base::Result<std::unique_ptr<Branch>> Branch::create(Store& store,
                                                     std::shared_ptr<const Snapshot> parent,
                                                     std::string_view vm_name) {
  if (vm_name.size() > kMaxNameBytes) return base::fail("the machine's name is too long");
  TRY_ASSIGN(const Id id, store.new_id());
  std::unique_ptr<Branch> branch(new Branch(store, id, vm_name));
  if (parent) {
    TRY_ASSIGN(branch->hold_, parent->hold());
    branch->head_.parent = parent->id();
  }
  branch->head_.branch = id;
  branch->head_.vm_name = vm_name;
  branch->parent_ = std::move(parent);
  return branch;
}

base::Result<void> Branch::take_place() {
  std::lock_guard lock(place_mutex_);
  if (lock_) return {};
  Storage& storage = store_.storage();
  const std::string name = branch_lock_name(id());
  // A recovery that came between would take the file for what a killed process left.
  TRY_ASSIGN(auto store_lock, store_.lock(File::Lock::kShared));
  TRY_ASSIGN(auto file, storage.create(name, Storage::Caching::kCached));
  if (auto locked = wait_for_lock(*file, File::Lock::kExclusive); !locked) {
    (void)storage.remove(name);
    return locked;
  }
  // For people, while the machine runs; nothing depends on it, so a full disk may leave it out.
  (void)file->write(0, std::as_bytes(std::span(vm_name_)));
  lock_ = std::move(file);
  return {};
}

Branch::~Branch() {
  assert(!committing_);
  if (!lock_ || !head_.layers.empty()) return;
  // Merges that no snapshot names go with it; what cannot be removed, a recovery finds.
  Storage& storage = store_.storage();
  for (const auto& [space, merged] : merged_) (void)storage.remove(run_name(merged.run.id));
  (void)storage.remove(head_name(id()));
  (void)storage.remove(branch_lock_name(id()));
}

void Branch::discard() {
  assert(!committing_);
  if (head_.layers.empty()) return;
  // Durably before its layers go: a HEAD that names missing ones would be damage. Where that does
  // not succeed it stays, as if the guest had run.
  Storage& storage = store_.storage();
  if (!storage.remove(head_name(id()))) return;
  if (!storage.sync_directory("heads")) return;
  for (const Head::Layer& layer : head_.layers) {
    (void)storage.remove(layer_name(layer.disk, layer.id));
    (void)storage.remove(layer_log_name(layer.disk, layer.id));
  }
  head_.layers.clear();
}

std::shared_ptr<const Snapshot> Branch::parent() const {
  std::lock_guard lock(mutex_);
  return parent_;
}

base::Result<Id> Branch::new_file_id() const {
  TRY_ASSIGN(Id file, store_.new_id());
  file.high = id_.high;
  return file;
}

base::Result<void> Branch::write_head(const Head& head) {
  Storage& storage = store_.storage();
  const std::string temporary = temporary_name(head.branch, head.branch);
  TRY_ASSIGN(const bool left_over, storage.exists(temporary));
  if (left_over) TRY(storage.remove(temporary));
  auto replace = [&]() -> base::Result<void> {
    TRY_ASSIGN(auto file, storage.create(temporary, Storage::Caching::kCached));
    TRY(file->write(0, encode_head(store_.format(), head)));
    TRY(file->sync());
    return storage.rename(temporary, head_name(head.branch));
  };
  if (auto replaced = replace(); !replaced) {
    (void)storage.remove(temporary);
    return replaced;
  }
  return storage.sync_directory("heads");
}

base::Result<LayerFiles> Branch::create_layer(uint32_t disk) {
  if (disk >= kMaxDisks) return base::fail(fmt::format("disk {}: too many disks", disk));
  TRY(take_place());
  Storage& storage = store_.storage();
  LayerFiles layer;
  TRY_ASSIGN(layer.id, new_file_id());
  const std::string data_name = layer_name(disk, layer.id);
  const std::string log_name = layer_log_name(disk, layer.id);
  auto make = [&]() -> base::Result<void> {
    TRY_ASSIGN(layer.data, storage.create(data_name, Storage::Caching::kDirect));
    TRY_ASSIGN(layer.commit_data,
               storage.open(data_name, Storage::Access::kRead, Storage::Caching::kDirect));
    TRY_ASSIGN(layer.log, storage.create(log_name, Storage::Caching::kCached));
    TRY(storage.sync_directory("layers"));
    std::lock_guard lock(mutex_);
    Head next = head_;
    next.layers.push_back({disk, layer.id});
    if (next.layers.size() > kMaxHeadLayers) return base::fail("too many disk layers");
    TRY(write_head(next));
    head_ = std::move(next);
    return {};
  };
  if (auto made = make(); !made) {
    // HEAD may name the files nevertheless, where only its last fsync failed, so they stay: where
    // no HEAD names them, a recovery removes them.
    return std::unexpected(made.error().with("new disk layer"));
  }
  return layer;
}

base::Result<std::unique_ptr<Commit>> Branch::begin(Kind kind) {
  {
    std::lock_guard lock(mutex_);
    if (committing_) return base::fail("another snapshot of this machine is being taken");
    if (kind == Kind::kIncremental && !parent_) {
      return base::fail("an incremental snapshot needs an earlier one");
    }
  }
  TRY(take_place());
  // Once for each machine, and not when it starts. What is left over does no harm but take space,
  // so a recovery that cannot be done is no reason to take no snapshot.
  if (!recovered_) recovered_ = try_recover_store(store_).value_or(true);
  TRY_ASSIGN(const Id id, store_.new_id());
  {
    std::lock_guard lock(mutex_);
    committing_ = true;
  }
  return std::make_unique<Commit>(*this, kind, id);
}

base::Result<void> Branch::merge_if_due() {
  std::shared_ptr<const Snapshot> snapshot = parent();
  if (!snapshot) return {};
  Storage& storage = store_.storage();
  for (const SpaceInfo& space : snapshot->manifest().spaces) {
    const size_t count = runs_to_merge(space.runs);
    if (count == 0) continue;
    {
      std::lock_guard lock(mutex_);
      auto found = merged_.find(space.space);
      if (found != merged_.end() && found->second.of == snapshot->id()) continue;
    }
    TRY(take_place());
    TRY_ASSIGN(const Id id, new_file_id());
    TRY_ASSIGN(auto file, storage.create(run_name(id), Storage::Caching::kCached));
    auto merge = [&]() -> base::Result<RunInfo> {
      TRY_ASSIGN(RunInfo run, merge_runs(store_.format(), *snapshot->index(space.space), count,
                                         *file, id, snapshot->unwritten(space.space)));
      TRY(file->sync());
      return run;
    };
    auto run = merge();
    std::lock_guard lock(mutex_);
    if (!run || parent_ != snapshot) {
      // A commit came in between: the next call sees what is due now.
      (void)storage.remove(run_name(id));
      if (!run) return std::unexpected(run.error().with("merge of index runs"));
      return {};
    }
    merged_[space.space] = Merged{snapshot->id(), count, *run};
  }
  return {};
}

std::optional<Branch::Merged> Branch::merged(Space space, const Id& of) const {
  std::lock_guard lock(mutex_);
  auto found = merged_.find(space);
  if (found == merged_.end() || found->second.of != of) return std::nullopt;
  return found->second;
}

void Branch::committed(std::shared_ptr<const Snapshot> snapshot,
                       std::shared_ptr<Snapshot::Hold> hold,
                       const std::vector<Head::Layer>& sealed) {
  std::lock_guard lock(mutex_);
  Head next = head_;
  next.parent = snapshot->id();
  std::erase_if(next.layers, [&](const Head::Layer& layer) {
    return std::ranges::find(sealed, layer) != sealed.end();
  });
  for (const auto& [space, merged] : merged_) {
    const SpaceInfo* info = snapshot->manifest().find(space);
    const bool used = info && std::ranges::find(info->runs, merged.run) != info->runs.end();
    if (!used) (void)store_.storage().remove(run_name(merged.run.id));
  }
  merged_.clear();
  parent_ = std::move(snapshot);
  // The old HEAD says the same in other words, the former parent and the layers that are in the
  // new snapshot; so the former parent is kept until the new one is durable.
  const bool has_head = !head_.layers.empty();
  const bool settled = !has_head || write_head(next);
  head_ = std::move(next);
  if (!settled) {
    former_holds_.push_back(std::exchange(hold_, std::move(hold)));
    return;
  }
  former_holds_.clear();
  hold_ = std::move(hold);
  for (const Head::Layer& layer : sealed) {
    (void)store_.storage().remove(layer_log_name(layer.disk, layer.id));
  }
}

void Branch::commit_ended() {
  std::lock_guard lock(mutex_);
  committing_ = false;
}

}  // namespace snapshot
