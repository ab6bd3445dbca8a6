// The pages of a snapshot in the making: copied once each into a bounded pool, hashed there,
// compared with the parent snapshot, and written to the pack from there. Guest memory itself is
// never written to a file: what is hashed and what is written are the same bytes.
//
// The pool is a ring of page slots, written out oldest first, so that pages copied again (written
// often) tend to be replaced before they leave. A page has one place in the pack: a newer copy is
// written over the older one, after that write is complete.
//
// Owned by one capture; one thread. copy() allocates nothing and makes no system call.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "snapshot/storage.h"
#include "snapshot/types.h"
#include "vmm/base/mapping.h"
#include "vmm/base/result.h"

namespace snapshot {

// The pool's memory, which one snapshot leaves to the next.
struct StagingPool {
  uint64_t pages = 0;
  base::Mapping memory = {};
  uint64_t touched = 0;  // pages that memory exists for, from the first on
  // uint32 a RAM page: index into the staging area's entries + 1; 0, as all are without one: none.
  base::Mapping entry_of = {};
};

class Staging {
 public:
  struct Options {
    uint64_t ram_pages = 0;
    uint64_t pool_pages = 0;  // at least kSmallestPool
  };
  // The hash of a page's content, and what the parent snapshot says of the page.
  using Hasher = std::function<PageHash(const std::byte* page)>;
  using Parent = std::function<base::Result<PageEntry>(uint64_t page)>;
  struct Counts {
    uint64_t copied = 0;     // copies made, again and again where a page was written again
    uint64_t zero = 0;       // pages of the snapshot that are zero and were not
    uint64_t data = 0;       // pages of the snapshot with content
    uint64_t unchanged = 0;  // copies whose content is the parent's
    uint64_t written = 0;    // pages written to the pack, rewritten ones included
    uint64_t rewritten = 0;  // those written over an older copy
  };
  static constexpr uint64_t kSmallestPool = 1024;

  // `pool` outlives the object, and is made anew where it has another size.
  static base::Result<std::unique_ptr<Staging>> create(const Options& options, StagingPool& pool,
                                                       Hasher hasher, Parent parent,
                                                       std::unique_ptr<IoQueue> queue);

  ~Staging();

  // Copies of new pages that still fit; pages that are in the pool always do.
  uint64_t free_pages() const { return pool_pages_ - (head_ - tail_); }
  // Makes the next `pages` copies free of allocations and page faults of the pool.
  void reserve(uint64_t pages);
  // Copies a page; false where the pool is full.
  bool copy(uint64_t page, const std::byte* from);
  // Hashes and compares what was copied since the last call.
  base::Result<void> settle();
  // Starts writing settled pages to `pack`, oldest first, until the pool is at most half full;
  // waits only as long as fewer than `wanted_free` pages fit.
  base::Result<void> relieve(File& pack, uint64_t wanted_free);
  // Writes everything that is left and waits for it.
  base::Result<void> flush(File& pack);
  // After flush(): the pages that differ from the parent, in ascending order.
  std::vector<PageEntry> take_entries(Slot slot);

  const Counts& counts() const { return counts_; }
  uint64_t pool_bytes() const { return pool_.memory.size(); }
  // Bytes of the pack's data part that are in use or dead.
  uint64_t pack_pages() const { return next_place_; }

 private:
  static constexpr uint32_t kNone = 0xFFFF'FFFF;
  static constexpr uint64_t kWritePages = 256;  // 1 MiB
  static constexpr unsigned kQueueDepth = 16;

  struct Entry {
    uint64_t page = 0;
    PageHash hash = 0;
    uint64_t position = 0;   // in the ring, where in_pool
    uint32_t place = kNone;  // pages into the pack's data
    bool in_pool = false;
    bool settled = false;
    bool writing = false;
    enum class Content : uint8_t { kUnchanged, kZero, kData } content = Content::kUnchanged;
  };
  struct Write : IoQueue::Operation {
    uint64_t position = 0, pages = 0;
    uint64_t done = 0;  // bytes, of a write that was cut short
    iovec vector{};
    File* pack = nullptr;
    bool free = true;
  };

  Staging(const Options& options, StagingPool& pool, Hasher hasher, Parent parent,
          std::unique_ptr<IoQueue> queue);
  std::byte* slot_data(uint64_t position) const;
  uint32_t& entry_of(uint64_t page);
  base::Result<void> settle_entry(Entry& entry);
  void leave_pool(Entry& entry);
  void advance_tail();
  base::Result<bool> start_write(File& pack);
  base::Result<void> make_room(File& pack);
  base::Result<void> submit(Write& write, uint64_t offset);
  base::Result<void> collect(bool wait);
  Write* free_write();

  uint64_t ram_pages_, pool_pages_;
  Hasher hasher_;
  Parent parent_;
  StagingPool& pool_;
  std::vector<uint32_t> slot_entry_;  // by ring position: index into entries_, kNone: nothing
  std::vector<Entry> entries_;
  std::vector<uint32_t> unsettled_;
  // Ring positions grow without end; slot = position % pool_pages_. [tail_, written_): being
  // written or done; [written_, head_): waiting.
  uint64_t tail_ = 0, written_ = 0, head_ = 0;
  uint64_t next_place_ = 0;
  uint64_t pack_bytes_ = 0;  // the pack is at least so long
  PageHash zero_hash_ = 0;
  Counts counts_;
  std::vector<std::unique_ptr<Write>> writes_;
  std::unique_ptr<IoQueue> queue_;  // last: waits for the writes before their memory goes
};

}  // namespace snapshot
