// A snapshot on its way into the store. Its files are written while the guest runs; finish() makes
// them durable and then, by one rename, a snapshot. Until that, nothing of the store has changed;
// a commit that fails, is abandoned or goes away takes its files with it.
//
// Made by Branch::begin(); one thread at a time. create_pack()'s file may be written from any.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "snapshot/storage.h"
#include "snapshot/store/manifest.h"
#include "snapshot/store/run.h"
#include "snapshot/store/snapshot.h"
#include "vmm/base/sections.h"

namespace snapshot {

class Branch;

class Commit {
 public:
  Commit(Branch& branch, Kind kind, Id id);
  Commit(const Commit&) = delete;
  Commit& operator=(const Commit&) = delete;
  ~Commit();  // abandons what was not finished

  const Id& id() const { return id_; }
  Kind kind() const { return kind_; }

  // A new pack, opened for direct access, its header written and space for `estimate_bytes` of
  // page data allocated. Pages go to multiples of 4096 from kPackHeaderBytes on; each is written
  // before finish(). Where there is no space nothing is left behind.
  base::Result<Slot> create_pack(uint64_t estimate_bytes);
  File& file(Slot slot) { return *slots_[slot].file; }

  // A sealed layer of this branch, from LayerFiles, no longer written to: its blocks may be named
  // by entries. finish() makes it durable, after which its log is no longer needed and goes away.
  // `data` stays open until finish() returns. Where its sync fails, `sync_failed` becomes true;
  // where it is true already, finish() fails.
  Slot add_layer(uint32_t disk, const Id& layer, File& data,
                 std::atomic<bool>* sync_failed = nullptr);

  // What changed against the parent: entries ascending by page, each page once, slots of this
  // commit (or zero, or base for disks). For RAM of a full snapshot, and for a space the parent
  // does not have: every page that is not zero (not base).
  base::Result<void> set_pages(Space space, uint64_t total_pages, std::vector<PageEntry> entries);

  // Durable when it returns; the snapshot is then the branch's parent, and held by it. After an
  // error the store is as it was before begin().
  base::Result<std::shared_ptr<const Snapshot>> finish(const base::SectionWriter& sections,
                                                       const SnapshotNotes& notes);
  void abandon();

 private:
  struct SlotFile {
    SlotInfo info;
    std::unique_ptr<File> owned;  // a pack's
    File* file = nullptr;
    bool used = false;
    std::atomic<bool>* sync_failed = nullptr;
  };
  struct Pages {
    uint64_t total = 0;
    std::vector<PageEntry> entries;
  };
  base::Result<void> check_entries(Space space, const Pages& pages) const;
  base::Result<void> settle_files();
  base::Result<void> add_space(Manifest& manifest, Space space, Slot unwritten);
  base::Result<void> write_run(SpaceInfo& space, const Pages& pages, bool flat, Slot unwritten);
  base::Result<void> merge_inline(SpaceInfo& space, Slot unwritten);
  base::Result<File*> create_run(Id& id);
  void count_pages(Manifest& manifest) const;
  base::Result<void> make_durable(File& manifest);
  base::Result<std::shared_ptr<const Snapshot>> publish(Manifest manifest,
                                                        std::shared_ptr<File> file,
                                                        uint64_t manifest_bytes);

  Branch& branch_;
  const Kind kind_;
  const Id id_;
  const std::shared_ptr<const Snapshot> parent_;
  std::vector<SlotFile> slots_;
  std::map<Space, Pages> pages_;
  std::vector<std::unique_ptr<File>> runs_;
  uint64_t run_bytes_ = 0;            // merges left out
  bool new_run_names_ = false;        // in runs/, not durable yet
  std::vector<std::string> created_;  // files to remove where it does not succeed
  bool open_ = true;
};

}  // namespace snapshot
