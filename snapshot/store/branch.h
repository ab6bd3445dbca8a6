// One running machine's place in the store: heads/<id>.lock, locked from its first file there for
// as long as the machine lives, and what its next snapshot continues: the parent snapshot and the
// disk layers written since. The layers make a HEAD necessary; a machine without any has none, and
// nothing of it has to be durable before its first commit.
//
// Owned by the machine's snapshot engine. Commits are one at a time; create_layer() and
// merge_if_due() may run on other threads. The Store outlives it.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "snapshot/storage.h"
#include "snapshot/store/head.h"
#include "snapshot/store/snapshot.h"

namespace snapshot {

class Commit;
class Store;

// A disk's new layer: both files are empty.
struct LayerFiles {
  Id id;
  std::unique_ptr<File> data;
  // The data once more, opened for reading before anything is written: the kernel tells of a failed
  // write once to each open file, so the guest's flushes and the commit need one each.
  std::unique_ptr<File> commit_data;
  std::unique_ptr<File> log;
};

class Branch {
 public:
  // A new branch that continues `parent` (null: none).
  static base::Result<std::unique_ptr<Branch>> create(Store& store,
                                                      std::shared_ptr<const Snapshot> parent,
                                                      std::string_view vm_name);
  Branch(const Branch&) = delete;
  Branch& operator=(const Branch&) = delete;
  // Unlocks. A branch without layers leaves nothing behind; one with layers keeps its HEAD, so that
  // what the guest wrote after the last snapshot is there until Store::remove_head().
  ~Branch();

  // The guest never ran: what there is of its disks goes with the branch. Nobody uses its layers
  // any more; called last.
  void discard();

  const Id& id() const { return id_; }
  const std::string& vm_name() const { return vm_name_; }
  // The last snapshot of this machine, held; null before the first.
  std::shared_ptr<const Snapshot> parent() const;

  // The files exist and HEAD names them, durably, when this returns.
  base::Result<LayerFiles> create_layer(uint32_t disk);

  // Kind::kIncremental needs a parent. One commit at a time; the branch outlives it.
  base::Result<std::unique_ptr<Commit>> begin(Kind kind);

  // Merges index runs of the last snapshot where that is due; the next commit's manifest names the
  // result. Takes milliseconds to seconds: called between commits, on a thread of its own if need
  // be. Where it fails, nothing is lost but the merge.
  base::Result<void> merge_if_due();

 private:
  friend class Commit;
  // A run that stands for the newest `replaced` runs of a space of snapshot `of`.
  struct Merged {
    Id of;
    size_t replaced = 0;
    RunInfo run;
  };
  Branch(Store& store, const Id& id, std::string_view vm_name)
      : store_(store), id_(id), vm_name_(vm_name) {}
  // Before the first file: whoever recovers the store lets them be from then on. A machine that is
  // restored and takes no snapshot makes no file at all.
  base::Result<void> take_place();
  base::Result<void> write_head(const Head& head);  // durably
  // Packs, runs and layers carry the first half of their branch's id, so that a recovery knows,
  // without reading them, whose unfinished files they are.
  base::Result<Id> new_file_id() const;
  std::optional<Merged> merged(Space space, const Id& of) const;
  void committed(std::shared_ptr<const Snapshot> snapshot, std::shared_ptr<Snapshot::Hold> hold,
                 const std::vector<Head::Layer>& sealed);
  void commit_ended();

  Store& store_;
  const Id id_;
  const std::string vm_name_;
  std::mutex place_mutex_;  // guards lock_; held while the store's lock is waited for
  std::unique_ptr<File> lock_;
  bool recovered_ = false;
  mutable std::mutex mutex_;  // guards what follows
  Head head_;                 // as it is in the store, where it has layers
  std::shared_ptr<const Snapshot> parent_;
  std::shared_ptr<Snapshot::Hold> hold_;  // of the parent
  // Of earlier parents, one of which the durable HEAD names: a HEAD could not be replaced.
  std::vector<std::shared_ptr<Snapshot::Hold>> former_holds_;
  std::map<Space, Merged> merged_;
  bool committing_ = false;
};

}  // namespace snapshot
