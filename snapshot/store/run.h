// A run: an immutable, sorted index file of one page space, in blocks of 4 KiB under a hash tree
// whose root is in the manifest. A delta run has entries of some pages, a flat one of all.
//
// Written once by RunWriter, front to back; read through RunReader, which checks each block against
// its parent before it uses it and keeps a bounded number. A writer belongs to one thread, a reader
// to any.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "snapshot/storage.h"
#include "snapshot/store/format.h"
#include "snapshot/store/manifest.h"

namespace snapshot {

// A file that entries of a run name.
struct SlotInfo {
  enum class Kind : uint32_t { kPack = 1, kLayer = 2 };
  Kind kind = Kind::kPack;
  uint32_t disk = 0;  // of a layer
  Id id;
  uint64_t bytes = 0;

  std::string name() const { return kind == Kind::kPack ? pack_name(id) : layer_name(disk, id); }
  auto operator<=>(const SlotInfo&) const = default;
};

// Blocks of a run with `entries` entries, level by level: leaves first, the root block last.
struct RunShape {
  static RunShape of(RunInfo::Kind kind, uint64_t entries, uint32_t head_blocks);
  std::vector<uint64_t> level_blocks;  // how many
  std::vector<uint64_t> level_start;   // the first block's number in the file
  uint64_t blocks = 0;                 // of the whole file
};
// Blocks that header and slot table take.
uint32_t run_head_blocks(uint32_t slots);

class RunWriter {
 public:
  // `slots_at_most`: how many files the entries will name. The file is empty.
  RunWriter(const Format& format, File& file, const Id& id, Space space, RunInfo::Kind kind,
            uint32_t slots_at_most);
  // Slot numbers of `entry` are those of `slots`, given to finish(). Ascending pages; a flat run
  // gets every page.
  base::Result<void> add(const PageEntry& entry);
  base::Result<RunInfo> finish(std::span<const SlotInfo> slots);

 private:
  struct Child {
    uint32_t first_page;
    uint64_t hash;
  };
  base::Result<void> end_block();
  base::Result<void> flush();
  base::Result<void> write_nodes();

  const Format format_;
  File& file_;
  const Id id_;
  const Space space_;
  const RunInfo::Kind kind_;
  const uint32_t head_blocks_;
  uint64_t entries_ = 0;
  uint64_t written_ = 0;           // bytes of the file, the buffered ones left out
  std::vector<std::byte> buffer_;  // what is not written yet; ends in the block being filled
  size_t block_start_ = 0;         // in the buffer
  uint32_t block_first_page_ = 0;
  std::vector<Child> level_;  // the finished blocks of the level being written
};

class RunReader {
 public:
  // Opens nothing yet.
  RunReader(Storage& storage, const Format& format, Space space, const RunInfo& info);

  const RunInfo& info() const { return info_; }
  // The files its entries name; read and checked when first asked for.
  base::Result<std::span<const SlotInfo>> slots() const;
  // Until it is read again: descriptors are few.
  void close() const;

  // Advice to the disk: find() and for_each() begin with the root block. Errors are theirs to tell.
  void will_find() const;
  // Slots in what is returned are this run's own; nothing where the run does not have the page.
  base::Result<std::optional<PageEntry>> find(uint64_t page) const;

  // Calls take(entry) for each entry with a page in [first, end), ascending.
  template <typename Take>
  base::Result<void> for_each(uint64_t first, uint64_t end, Take take) const {
    std::vector<PageEntry> entries;
    TRY_ASSIGN(uint64_t leaf, leaf_of(first));
    for (; leaf < shape_.level_blocks.front(); ++leaf) {
      TRY(read_leaf(leaf, entries));
      for (const PageEntry& entry : entries) {
        if (entry.page >= end) return {};
        if (entry.page >= first) take(entry);
      }
    }
    return {};
  }

  // Reads and checks every block; not through the cache.
  base::Result<void> verify() const;

 private:
  using Block = std::array<std::byte, kBlockBytes>;
  using BlockRef = std::shared_ptr<const Block>;

  base::Result<std::shared_ptr<File>> file() const;
  base::Result<BlockRef> block(size_t level, uint64_t index, uint64_t expected_hash) const;
  // The number of the leaf in which `page` is, if in any.
  base::Result<uint64_t> leaf_of(uint64_t page) const;
  base::Result<BlockRef> leaf(uint64_t index) const;
  base::Result<void> read_leaf(uint64_t index, std::vector<PageEntry>& into) const;
  size_t records_in(size_t level, uint64_t index) const;
  base::Result<PageEntry> decode(uint64_t page, uint64_t hash, uint64_t location) const;
  std::unexpected<base::Error> damaged(const char* what, uint64_t block) const;

  Storage& storage_;
  const Format format_;
  const Space space_;
  const RunInfo info_;
  const RunShape shape_;
  mutable std::mutex mutex_;  // guards what follows
  mutable std::shared_ptr<File> file_;
  mutable std::optional<std::vector<SlotInfo>> slots_;
  mutable std::unordered_map<uint64_t, BlockRef> cache_;  // by the block's number in the file
  mutable std::vector<uint64_t> cached_;                  // a ring: the oldest goes first
  mutable size_t oldest_ = 0;
};

}  // namespace snapshot
