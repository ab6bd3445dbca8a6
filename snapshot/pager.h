// Brings the memory of a restored machine in while it runs. A page that somebody waits for comes
// first, and those beside it with it; a reader in the background brings the rest: the working set
// in the order in which it was touched the last time, then everything by large reads. Each page is
// read into memory of the pager's own and its hash checked before the guest sees it. Where most of
// a huge page has content, the reader fills one aside and puts it in its place (huge_pages.h).
//
// A page that is damaged, or cannot be read, ends the machine: whoever waits for it never gets
// anything else. Once everything is there the guest's memory is plain memory.
//
// Owned by the restored machine's owner; made before any vCPU or device runs, destroyed after they
// ended. The pager's threads touch no guest memory except through userfaultfd, and wait for no lock
// that anybody holds who touches it.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "snapshot/huge_pages.h"
#include "snapshot/page_bits.h"
#include "snapshot/store/snapshot.h"
#include "snapshot/userfault.h"
#include "vmm/base/aside.h"
#include "vmm/base/fd.h"
#include "vmm/base/result.h"
#include "vmm/guest_memory.h"

namespace snapshot {

class Pager {
 public:
  // What nobody waits for.
  struct Ahead {
    // First of all: RAM pages, in the order of their first touch.
    std::vector<uint64_t> working_set = {};
    // Then for so long only faults are served, so that they tell what the working set is,
    uint64_t record_ms = 0;
    // or until nobody has waited for a page for so long (0: that does not end it).
    uint64_t record_quiet_ms = 0;
    // Then: what it was, in the order of first touch; pages that came with others after those.
    std::function<void(std::vector<uint64_t> pages)> on_recorded = {};
  };
  struct Counters {
    std::atomic<uint64_t> faults = 0;      // pages somebody waited for
    std::atomic<uint64_t> beside = 0;      // pages that came with them
    std::atomic<uint64_t> background = 0;  // pages that were there before anybody asked
    std::atomic<uint64_t> huge = 0;        // of those: huge pages
  };

  // Who touches the memory, of which nothing is there, waits from now on. `on_damage` is called
  // once, on a thread of the pager's: the machine cannot go on.
  static base::Result<std::unique_ptr<Pager>> create(vmm::GuestMemory& memory,
                                                     std::shared_ptr<const Snapshot> snapshot,
                                                     std::function<void(base::Error)> on_damage);
  // Serves who waits, on a thread that is made, or on that of `aside`. Once.
  base::Result<void> begin(base::Aside* aside = nullptr);
  ~Pager();

  // Brings a RAM page on the caller's thread: who is about to touch it need not wait for another
  // one to do so. Before bring_ahead().
  base::Result<void> bring_now(uint64_t page);

  // From here on also what nobody waits for is brought, on a thread of its own, which asks for it
  // (null: all of it in any order). Once, and best said when the guest runs: until then the CPUs
  // have better things to do.
  base::Result<void> bring_ahead(std::function<Ahead()> ahead = nullptr);

  // Nobody needs more than what he waits for: the machine ended. What is not brought is not looked
  // at, so that damage of it is not heard of.
  void end_ahead();

  // Is every page of the snapshot in memory?
  bool complete() const { return complete_.load(std::memory_order_acquire); }
  // Waits for it; false where the pager gave up, or nothing is brought ahead any more.
  bool wait_complete();
  // The pages that were waited for so far, and those that came with them, in order.
  std::vector<uint64_t> touched() const;
  const Counters& counters() const { return counters_; }

 private:
  Pager(vmm::GuestMemory& memory, std::shared_ptr<const Snapshot> snapshot,
        std::function<void(base::Error)> on_damage, Userfault userfault, base::EventFd stop);
  // The fault thread's. Whoever waits for a page is served in turn, one at a time: while the memory
  // map changes, only what was given back is heard of, and who else waits goes to waiting_.
  void serve_faults();
  base::Result<void> take_event();
  base::Result<void> serve(std::byte* address);
  base::Result<void> provide(uint64_t page);
  base::Result<void> provide_zero(std::byte* address);
  // Content that was checked, to be provided.
  struct Filled {
    uint64_t page = 0;
    const std::byte* data = nullptr;
  };
  base::Result<void> place(std::span<const Filled> pages);
  base::Result<void> place_side_by_side(std::span<const PageEntry> entries, const std::byte* data);

  void bring_rest(const Ahead& ahead);
  base::Result<void> bring_all(const Ahead& ahead);
  base::Result<void> bring_working_set(const std::vector<uint64_t>& set);
  void record_working_set(const Ahead& ahead);
  // Reads, checks and provides the pages of `entries`, which lie close together in one file.
  base::Result<void> bring_run(std::span<const PageEntry> entries);
  base::Result<void> bring(std::span<PageEntry> entries, bool keep_order);
  // The HugePages::kPages pages from `first`, as one. False: page by page is better, or all there
  // is.
  base::Result<bool> bring_huge(uint64_t first);
  // Nothing where it is better brought page by page.
  struct HugePlan {
    std::vector<PageEntry> entries;                // those with content
    std::vector<std::span<const PageEntry>> runs;  // of them: side by side in the file as well
  };
  base::Result<std::optional<HugePlan>> plan_huge(uint64_t first) const;
  bool any_done(uint64_t first) const;

  const std::byte* zeroes() const { return around_.data() + around_.size() / 2; }
  bool is_done(uint64_t page) const { return done_[page / 64] >> (page % 64) & 1; }
  void set_done(uint64_t page) { done_[page / 64] |= 1ull << (page % 64); }
  void give_up(base::Error error);

  vmm::GuestMemory& memory_;
  std::shared_ptr<const Snapshot> snapshot_;
  const std::function<void(base::Error)> on_damage_;
  Userfault userfault_;
  base::EventFd stop_;
  std::atomic<bool> stopping_ = false;
  std::atomic<bool> enough_ = false;  // nothing is brought ahead any more
  std::atomic<bool> complete_ = false;
  Counters counters_;

  // Held while an event is taken off the userfaultfd and while pages are provided: a page the guest
  // gave back after its content was read must not get that content again.
  mutable std::mutex mutex_;
  PageBits done_;       // provided, or given back by the guest since
  PageBits huge_done_;  // huge pages, by number, that are plain memory
  // Only zero pages are left, and the memory is about to be watched no more: who still waits for
  // one is woken after that, and finds plain memory.
  bool plain_ = false;
  std::vector<uint64_t> touched_;
  bool gave_up_ = false;
  std::condition_variable changed_;

  std::optional<HugePages> huge_;   // the background thread's
  base::Mapping around_;            // the fault thread's: what it reads, then zeroes
  std::deque<std::byte*> waiting_;  // the fault thread's: addresses
  // faults_ itself is not to be read before it is assigned, which may be after it began.
  std::atomic<std::thread::id> fault_thread_ = std::thread::id();
  std::thread faults_, background_;
};

}  // namespace snapshot
