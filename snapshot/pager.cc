#include "snapshot/pager.h"

#include <fmt/format.h>
#include <poll.h>

#include <algorithm>
#include <array>
#include <chrono>

#include "vmm/base/mapping.h"
#include "vmm/base/thread.h"

namespace snapshot {

using base::fail;
using base::Result;

namespace {
constexpr uint64_t kReadBytes = 1 << 20;
// Between two pages of one read that nobody wants: reading on is cheaper than another read.
constexpr uint64_t kGapBytes = 64 << 10;
// Provided under one hold of the lock: whoever waits for a page waits that long at most.
constexpr size_t kPlacePages = 16;
constexpr uint64_t kLookupPages = 4096;
constexpr size_t kMostTouched = 1 << 20;
}  // namespace

Result<std::unique_ptr<Pager>> Pager::start(vmm::GuestMemory& memory,
                                            std::shared_ptr<const Snapshot> snapshot,
                                            Options options) {
  TRY_ASSIGN(Userfault userfault, Userfault::create());
  TRY_ASSIGN(base::EventFd stop, base::EventFd::create());
  for (const vmm::GuestMemory::Region& region : memory.regions()) {
    TRY(userfault.watch(region.host, region.size));
  }
  std::unique_ptr<Pager> pager(new Pager(memory, std::move(snapshot), std::move(options),
                                         std::move(userfault), std::move(stop)));
  TRY_ASSIGN(pager->faults_,
             base::start_thread("pager", [raw = pager.get()] { raw->serve_faults(); }));
  TRY_ASSIGN(pager->background_,
             base::start_thread("pager-ahead", [raw = pager.get()] { raw->bring_rest(); }));
  return pager;
}

void Pager::bring_ahead() {
  {
    std::lock_guard lock(mutex_);
    ahead_ = true;
  }
  changed_.notify_all();
}

Pager::Pager(vmm::GuestMemory& memory, std::shared_ptr<const Snapshot> snapshot, Options options,
             Userfault userfault, base::EventFd stop)
    : memory_(memory),
      snapshot_(std::move(snapshot)),
      options_(std::move(options)),
      userfault_(std::move(userfault)),
      stop_(std::move(stop)),
      done_(make_page_bits(memory.ram_pages())) {}

Pager::~Pager() {
  {
    std::lock_guard lock(mutex_);  // not between a look at it and the wait
    stopping_ = true;
  }
  stop_.signal();
  changed_.notify_all();
  if (background_.joinable()) background_.join();
  if (faults_.joinable()) faults_.join();
}

bool Pager::wait_complete() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return complete_ || gave_up_ || stopping_; });
  return complete_;
}

std::vector<uint64_t> Pager::touched() const {
  std::lock_guard lock(mutex_);
  return touched_;
}

void Pager::give_up(base::Error error) {
  {
    std::lock_guard lock(mutex_);
    if (gave_up_) return;
    gave_up_ = true;
  }
  changed_.notify_all();
  options_.on_damage(std::move(error));
}

// --- what somebody waits for ---

void Pager::serve_faults() {
  std::array<pollfd, 2> wait{{{userfault_.fd(), POLLIN, 0}, {stop_.fd(), POLLIN, 0}}};
  while (!stopping_) {
    if (::poll(wait.data(), wait.size(), -1) < 0 && errno != EINTR) {
      return give_up(base::Error("poll of userfaultfd", errno));
    }
    if (wait[0].revents & POLLIN) {
      if (auto served = serve_one(); !served) give_up(served.error());
    }
  }
}

Result<void> Pager::serve_one() {
  std::unique_lock lock(mutex_);
  TRY_ASSIGN(Userfault::Event event, userfault_.next());
  if (event.kind == Userfault::Event::Kind::kNone) return {};
  auto page = memory_.ram_page_at(event.address);
  if (!page) return fail("a page fault outside guest memory");
  if (event.kind == Userfault::Event::Kind::kRemoved) {
    for (uint64_t i = 0; i < event.length / kPageBytes; ++i) set_done(*page + i);
    return {};
  }
  counters_.faults.fetch_add(1, std::memory_order_relaxed);
  if (touched_.size() < kMostTouched) touched_.push_back(*page);
  bool gone = is_done(*page);
  lock.unlock();
  // Gone: given back by the guest, or provided since.
  TRY(gone ? provide_zero(event.address) : provide(*page));
  lock.lock();
  if (!plain_) return {};
  // The end of the watch wakes those who wait, but not one who begins to in that moment.
  changed_.wait(lock, [this] { return complete_ || gave_up_ || stopping_; });
  return userfault_.wake(event.address, kPageBytes);
}

Result<void> Pager::provide_zero(std::byte* address) {
  for (;;) {
    {
      std::lock_guard lock(mutex_);
      if (plain_) return {};
      TRY_ASSIGN(auto outcome, userfault_.zero(address, kPageBytes));
      if (outcome == Userfault::Outcome::kDone) return {};
    }
    TRY(serve_one());
  }
}

Result<void> Pager::provide(uint64_t page) {
  TRY_ASSIGN(PageEntry entry, snapshot_->find(kRamSpace, page));
  alignas(4096) std::array<std::byte, kPageBytes> data;
  if (entry.slot == kSlotZero) {
    counters_.zero.fetch_add(1, std::memory_order_relaxed);
    data.fill(std::byte{0});
  } else {
    TRY(snapshot_->read_entry(kRamSpace, entry, data));
  }
  return place({&entry, 1}, data.data(), entry.offset);
}

// `data` begins at `data_offset` of the file the entries are in; hashes are checked.
Result<void> Pager::place(std::span<const PageEntry> entries, const std::byte* data,
                          uint64_t data_offset) {
  for (size_t i = 0; i < entries.size();) {
    // Side by side in memory and in the file: one call.
    size_t count = 1;
    while (i + count < entries.size() && count < kPlacePages &&
           entries[i + count].page == entries[i].page + count &&
           entries[i + count].offset == entries[i].offset + count * kPageBytes) {
      ++count;
    }
    std::unique_lock lock(mutex_);
    if (plain_) return {};
    size_t wanted = 0;
    while (wanted < count && !is_done(entries[i + wanted].page)) ++wanted;
    if (wanted == 0) {
      ++i;
      continue;
    }
    const std::byte* from = data + (entries[i].offset - data_offset);
    std::byte* to = memory_.host(entries[i].page);
    if (memory_.host(entries[i + wanted - 1].page) != to + (wanted - 1) * kPageBytes) wanted = 1;
    TRY_ASSIGN(auto outcome, userfault_.copy(to, from, wanted * kPageBytes));
    if (outcome == Userfault::Outcome::kBusy) {
      // Somebody gives pages back just now; the fault thread hears of it with this lock.
      lock.unlock();
      if (std::this_thread::get_id() == faults_.get_id()) {
        TRY(serve_one());
      } else {
        std::this_thread::yield();
      }
      continue;
    }
    for (size_t k = 0; k < wanted; ++k) set_done(entries[i + k].page);
    i += wanted;
  }
  return {};
}

// --- what nobody waits for yet ---

void Pager::bring_rest() {
  {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return ahead_ || stopping_; });
  }
  if (stopping_) return;
  if (auto brought = bring_all(); !brought) {
    if (!stopping_) give_up(brought.error());
    return;
  }
  if (stopping_) return;
  {
    std::lock_guard lock(mutex_);
    plain_ = true;
  }
  // Under no lock that the fault thread needs: threads that still wait for a zero page are woken.
  for (const vmm::GuestMemory::Region& region : memory_.regions()) {
    if (auto plain = userfault_.unwatch(region.host, region.size); !plain) {
      return give_up(plain.error());
    }
  }
  {
    std::lock_guard lock(mutex_);
    complete_ = true;
  }
  changed_.notify_all();
}

Result<void> Pager::bring_all() {
  uint64_t pages = memory_.ram_pages();
  std::vector<PageEntry> first;
  for (uint64_t page : options_.working_set) {
    if (page >= pages) continue;
    TRY_ASSIGN(PageEntry entry, snapshot_->find(kRamSpace, page));
    if (entry.slot != kSlotZero) first.push_back(entry);
  }
  TRY(bring(first, true));
  if (options_.record_ms > 0) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::milliseconds(options_.record_ms),
                      [this] { return stopping_.load(); });
    lock.unlock();
    if (options_.on_recorded && !stopping_) options_.on_recorded(touched());
  }
  std::vector<PageEntry> rest;
  std::vector<PageEntry> some(kLookupPages);
  for (uint64_t page = 0; page < pages && !stopping_; page += kLookupPages) {
    auto part = std::span(some).first(std::min(kLookupPages, pages - page));
    TRY(snapshot_->find_range(kRamSpace, page, part));
    for (const PageEntry& entry : part) {
      if (entry.slot != kSlotZero) rest.push_back(entry);
    }
  }
  return bring(rest, false);
}

Result<void> Pager::bring(std::span<PageEntry> entries, bool keep_order) {
  auto in_file = [](const PageEntry& a, const PageEntry& b) {
    return std::pair(a.slot, a.offset) < std::pair(b.slot, b.offset);
  };
  if (!keep_order) std::ranges::sort(entries, in_file);
  while (!entries.empty() && !stopping_) {
    size_t count = 1;
    while (count < entries.size()) {
      const PageEntry& last = entries[count - 1];
      const PageEntry& next = entries[count];
      if (next.slot != last.slot || next.offset <= last.offset ||
          next.offset - last.offset > kGapBytes ||
          next.offset + kPageBytes - entries[0].offset > kReadBytes) {
        break;
      }
      ++count;
    }
    TRY(bring_run(entries.first(count)));
    entries = entries.subspan(count);
  }
  return {};
}

Result<void> Pager::bring_run(std::span<const PageEntry> entries) {
  {
    std::lock_guard lock(mutex_);
    if (std::ranges::all_of(entries, [this](const PageEntry& e) { return is_done(e.page); })) {
      return {};
    }
  }
  static thread_local base::Mapping buffer;
  if (buffer.size() == 0) {
    TRY_ASSIGN(buffer, base::Mapping::anonymous(kReadBytes));
  }
  uint64_t start = entries.front().offset;
  uint64_t bytes = entries.back().offset + kPageBytes - start;
  TRY_ASSIGN(auto file, snapshot_->file(entries.front().slot));
  TRY(file->read(start, std::span(buffer.data(), bytes)));
  for (const PageEntry& entry : entries) {
    TRY(snapshot_->check(kRamSpace, entry,
                         std::span(buffer.data() + (entry.offset - start), kPageBytes)));
  }
  counters_.background.fetch_add(entries.size(), std::memory_order_relaxed);
  return place(entries, buffer.data(), start);
}

}  // namespace snapshot
