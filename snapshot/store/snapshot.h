// One committed snapshot, opened for reading: where each page is, and its content, verified. What
// is read is checked before it is used (index blocks on first use, pages by read_page()), and
// nothing is read whole, so opening costs the same at any size and chain length.
//
// Shared by who reads it; any thread. The Store it came from outlives it.
#pragma once

#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "snapshot/storage.h"
#include "snapshot/store/index.h"
#include "snapshot/store/manifest.h"
#include "vmm/base/sections.h"

namespace snapshot {

class Snapshot {
 public:
  // Reads snap/<id>. An error says what is damaged or missing.
  static base::Result<std::shared_ptr<const Snapshot>> load(Storage& storage, const Format& format,
                                                            const Id& id);
  Snapshot(const Snapshot&) = delete;
  Snapshot& operator=(const Snapshot&) = delete;
  ~Snapshot();

  const Manifest& manifest() const { return manifest_; }
  const Id& id() const { return manifest_.id; }
  uint64_t manifest_bytes() const { return manifest_bytes_; }

  // Device and vCPU state; each call reads and verifies it anew.
  base::Result<base::SectionReader> sections() const;

  std::vector<Space> spaces() const;
  uint64_t pages(Space space) const;  // 0 for a space there is none of

  // A page nobody wrote is in kSlotZero (RAM, disks without a base) or kSlotBase (disks with one).
  base::Result<PageEntry> find(Space space, uint64_t page) const;
  // Pages [first, first + into.size()), all inside the space. Sequential: about 10 ns a page, after
  // a fixed cost of a few microseconds; ask for thousands at once.
  base::Result<void> find_range(Space space, uint64_t first, std::span<PageEntry> into) const;

  // The file behind a slot, open for reading, through the page cache. Its length was checked.
  base::Result<std::shared_ptr<File>> file(Slot slot) const;
  // The same past the page cache; nothing is kept.
  base::Result<std::unique_ptr<File>> open_direct(Slot slot) const;

  // The verified content of a page; zeros where it is zero. A page in the disk's base image is an
  // error: the base is not part of the store.
  base::Result<void> read_page(Space space, uint64_t page,
                               std::span<std::byte, kPageBytes> into) const;
  // The same for a page whose entry is known.
  base::Result<void> read_entry(Space space, const PageEntry& entry,
                                std::span<std::byte, kPageBytes> into) const;
  // Is `content` what the entry says? The error names file, offset and page.
  base::Result<void> check(Space space, const PageEntry& entry,
                           std::span<const std::byte> content) const;

  // For merge, prune and verify: the index files themselves. Null for a space there is none of.
  const SpaceIndex* index(Space space) const;
  const std::vector<std::unique_ptr<SpaceIndex>>& indexes() const { return indexes_; }
  // Where pages are that nobody wrote.
  Slot unwritten(Space space) const;

  PageHash hash(std::span<const std::byte> page) const { return format_.hash(page); }

  // Keeps prune from removing the snapshot or any file it names, until the holder is gone; fails
  // where it is gone already. May be held several times. A process that is forked shares what
  // hold() gave: it is held until the last one lets it go.
  class Hold {
   public:
    // Locks the manifest's file, which nobody else locks through this object.
    static base::Result<std::shared_ptr<Hold>> lock(std::shared_ptr<File> manifest);
    Hold(const Hold&) = delete;
    Hold& operator=(const Hold&) = delete;
    ~Hold();

   private:
    explicit Hold(std::shared_ptr<File> file) : file_(std::move(file)) {}
    const std::shared_ptr<File> file_;
  };
  base::Result<std::shared_ptr<Hold>> hold() const;

 private:
  friend class Commit;  // makes the one it has just written
  Snapshot(Storage& storage, const Format& format, Manifest manifest, std::shared_ptr<File> file,
           uint64_t manifest_bytes);
  base::Result<SlotInfo> slot(Slot slot) const;
  base::Result<std::unique_ptr<File>> open(Slot slot, Storage::Caching caching) const;

  Storage& storage_;
  const Format format_;
  const Manifest manifest_;
  const std::shared_ptr<File> file_;  // the manifest
  const uint64_t manifest_bytes_;
  std::vector<std::unique_ptr<SpaceIndex>> indexes_;  // as manifest_.spaces
  mutable std::mutex mutex_;                          // guards what follows
  // The files last opened, by name: a file is in several runs' slot tables.
  mutable std::unordered_map<std::string, std::shared_ptr<File>> files_;
  mutable std::unordered_map<Slot, std::shared_ptr<File>> by_slot_;
};

}  // namespace snapshot
