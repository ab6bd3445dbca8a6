#include "snapshot/pager.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <unordered_map>
#include <unordered_set>
#include <utility>

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
// With a page somebody waits for come its neighbours in these: a wait costs as much as 16 pages.
constexpr uint64_t kAroundPages = 16;
constexpr size_t kMostTouched = 1 << 20;
// A huge page costs as much as some 200 pages one by one; and memory, where most of it is zero.
constexpr size_t kHugeContent = HugePages::kPages / 2;
// In more places than this a disk is better read in the order of the file.
constexpr size_t kHugeRuns = 32;
// How far the disk is asked to read ahead of a huge page.
constexpr uint64_t kReadAheadBytes = 4 << 20;

bool side_by_side(const PageEntry& a, const PageEntry& b) {
  if (b.page != a.page + 1 || b.slot != a.slot) return false;
  return a.slot == kSlotZero || b.offset == a.offset + kPageBytes;
}
}  // namespace

Result<std::unique_ptr<Pager>> Pager::create(vmm::GuestMemory& memory,
                                             std::shared_ptr<const Snapshot> snapshot,
                                             std::function<void(base::Error)> on_damage) {
  TRY_ASSIGN(Userfault userfault, Userfault::create());
  TRY_ASSIGN(base::EventFd stop, base::EventFd::create());
  for (const vmm::GuestMemory::Region& region : memory.regions()) {
    TRY(userfault.watch(region.host, region.size));
  }
  std::unique_ptr<Pager> pager(new Pager(memory, std::move(snapshot), std::move(on_damage),
                                         std::move(userfault), std::move(stop)));
  TRY_ASSIGN(pager->around_, base::Mapping::anonymous(2 * kAroundPages * kPageBytes));
  return pager;
}

Result<void> Pager::begin(base::Aside* aside) {
  auto serve = [this] { serve_faults(); };
  TRY_ASSIGN(faults_, aside != nullptr ? aside->hand_over("pager", serve)
                                       : base::start_thread("pager", serve));
  return {};
}

Result<void> Pager::bring_now(uint64_t page) {
  TRY_ASSIGN(PageEntry entry, snapshot_->find(kRamSpace, page));
  if (entry.slot == kSlotZero) return {};  // the fault thread has zeroes
  return bring_run(std::span(&entry, 1));
}

Result<void> Pager::bring_ahead(std::function<Ahead()> ahead) {
  TRY_ASSIGN(background_, base::start_thread("pager-ahead", [this, ahead = std::move(ahead)] {
               bring_rest(ahead ? ahead() : Ahead());
             }));
  return {};
}

Pager::Pager(vmm::GuestMemory& memory, std::shared_ptr<const Snapshot> snapshot,
             std::function<void(base::Error)> on_damage, Userfault userfault, base::EventFd stop)
    : memory_(memory),
      snapshot_(std::move(snapshot)),
      on_damage_(std::move(on_damage)),
      userfault_(std::move(userfault)),
      stop_(std::move(stop)),
      done_(make_page_bits(memory.ram_pages())),
      huge_done_(make_page_bits(memory.ram_pages() / HugePages::kPages)) {}

Pager::~Pager() {
  end_ahead();
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  stop_.signal();
  changed_.notify_all();
  if (faults_.joinable()) faults_.join();
}

void Pager::end_ahead() {
  {
    std::lock_guard lock(mutex_);  // not between a look at it and the wait
    enough_ = true;
  }
  changed_.notify_all();
  if (background_.joinable()) background_.join();
}

bool Pager::wait_complete() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return complete_ || gave_up_ || enough_; });
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
  on_damage_(std::move(error));
}

// --- what somebody waits for ---

void Pager::serve_faults() {
  fault_thread_ = std::this_thread::get_id();
  // There to be read, or they would be copied late; never written, so all of them are one page of
  // the kernel's. Before Linux 5.14 they are late.
  (void)::madvise(around_.data() + around_.size() / 2, around_.size() / 2, MADV_POPULATE_READ);
  std::array<pollfd, 2> wait{{{userfault_.fd(), POLLIN, 0}, {stop_.fd(), POLLIN, 0}}};
  while (!stopping_) {
    if (::poll(wait.data(), wait.size(), -1) < 0 && errno != EINTR) {
      return give_up(base::Error("poll of userfaultfd", errno));
    }
    if ((wait[0].revents & POLLIN) == 0) continue;
    if (auto taken = take_event(); !taken) give_up(taken.error());
    while (!waiting_.empty() && !stopping_) {
      std::byte* address = waiting_.front();
      waiting_.pop_front();
      if (auto served = serve(address); !served) give_up(served.error());
    }
  }
}

Result<void> Pager::take_event() {
  std::lock_guard lock(mutex_);
  TRY_ASSIGN(Userfault::Event event, userfault_.next());
  if (event.kind == Userfault::Event::Kind::kNone) return {};
  auto page = memory_.ram_page_at(event.address);
  if (!page) return fail("a page fault outside guest memory");
  if (event.kind == Userfault::Event::Kind::kMissing) {
    waiting_.push_back(event.address);
    return {};
  }
  for (uint64_t i = 0; i < event.length / kPageBytes; ++i) set_done(*page + i);
  return {};
}

Result<void> Pager::serve(std::byte* address) {
  uint64_t page = *memory_.ram_page_at(address);
  counters_.faults.fetch_add(1, std::memory_order_relaxed);
  std::unique_lock lock(mutex_);
  if (touched_.size() < kMostTouched) touched_.push_back(page);
  uint64_t huge = page / HugePages::kPages;
  bool moved = huge / 64 < huge_done_.size() && (huge_done_[huge / 64] >> (huge % 64) & 1) != 0;
  bool gone = is_done(page);
  lock.unlock();
  // Gone: given back by the guest, or provided since.
  if (!moved) TRY(gone ? provide_zero(address) : provide(page));
  lock.lock();
  if (plain_) {
    // The end of the watch wakes those who wait, but not one who begins to in that moment.
    changed_.wait(lock, [this] { return complete_ || gave_up_ || stopping_; });
  }
  lock.unlock();
  // Where it was given back just now nothing was provided: who waits looks again.
  return userfault_.wake(address, kPageBytes);
}

Result<void> Pager::provide_zero(std::byte* address) {
  for (;;) {
    {
      std::lock_guard lock(mutex_);
      if (plain_) return {};
      TRY_ASSIGN(uint64_t bytes, userfault_.copy(address, zeroes(), kPageBytes));
      if (bytes == kPageBytes) return {};
    }
    TRY(take_event());
  }
}

Result<void> Pager::provide(uint64_t page) {
  uint64_t window = page / kAroundPages * kAroundPages;
  std::array<PageEntry, kAroundPages> buffer;
  auto entries = std::span(buffer).first(std::min(kAroundPages, memory_.ram_pages() - window));
  TRY(snapshot_->find_range(kRamSpace, window, entries));
  uint64_t begin = page - window, end = begin + 1;
  {
    std::lock_guard lock(mutex_);
    auto wanted = [this](const PageEntry& entry) { return !is_done(entry.page); };
    while (begin > 0 && side_by_side(entries[begin - 1], entries[begin]) &&
           wanted(entries[begin - 1])) {
      --begin;
    }
    while (end < entries.size() && side_by_side(entries[end - 1], entries[end]) &&
           wanted(entries[end])) {
      ++end;
    }
    for (uint64_t i = begin; i < end && touched_.size() < kMostTouched; ++i) {
      if (window + i != page) touched_.push_back(window + i);
    }
  }
  counters_.beside.fetch_add(end - begin - 1, std::memory_order_relaxed);
  auto around = entries.subspan(begin, end - begin);
  if (around[0].slot == kSlotZero) {
    return place_side_by_side(around, zeroes());
  }
  std::span<std::byte> data(around_.data(), around.size() * kPageBytes);
  TRY_ASSIGN(auto file, snapshot_->file(around[0].slot));
  auto read_all = [&]() -> Result<void> {
    TRY(file->read(around[0].offset, data));
    for (size_t i = 0; i < around.size(); ++i) {
      TRY(snapshot_->check(kRamSpace, around[i], data.subspan(i * kPageBytes, kPageBytes)));
    }
    return {};
  };
  if (read_all()) return place_side_by_side(around, data.data());
  // What is damaged may be one that nobody waits for.
  TRY(snapshot_->read_entry(kRamSpace, entries[page - window], data.first<kPageBytes>()));
  return place_side_by_side(entries.subspan(page - window, 1), data.data());
}

Result<void> Pager::place_side_by_side(std::span<const PageEntry> entries, const std::byte* data) {
  std::array<Filled, kAroundPages> filled;
  for (size_t i = 0; i < entries.size(); ++i) {
    filled[i] = {entries[i].page, data + i * kPageBytes};
  }
  return place(std::span(filled).first(entries.size()));
}

Result<void> Pager::place(std::span<const Filled> pages) {
  for (size_t i = 0; i < pages.size();) {
    // Side by side here and there: one call.
    size_t count = 1;
    while (i + count < pages.size() && count < kPlacePages &&
           pages[i + count].page == pages[i].page + count &&
           pages[i + count].data == pages[i].data + count * kPageBytes) {
      ++count;
    }
    std::unique_lock lock(mutex_);
    if (plain_) return {};
    size_t wanted = 0;
    while (wanted < count && !is_done(pages[i + wanted].page)) ++wanted;
    if (wanted == 0) {
      ++i;
      continue;
    }
    std::byte* to = memory_.host(pages[i].page);
    if (memory_.host(pages[i + wanted - 1].page) != to + (wanted - 1) * kPageBytes) wanted = 1;
    TRY_ASSIGN(uint64_t bytes, userfault_.copy(to, pages[i].data, wanted * kPageBytes));
    const size_t provided = bytes / kPageBytes;
    for (size_t k = 0; k < provided; ++k) set_done(pages[i + k].page);
    i += provided;
    if (provided == wanted) continue;
    // Somebody gives pages back just now; the fault thread hears of it with this lock.
    lock.unlock();
    if (std::this_thread::get_id() == fault_thread_) {
      TRY(take_event());
    } else {
      std::this_thread::yield();
    }
  }
  return {};
}

// --- what nobody waits for yet ---

void Pager::bring_rest(const Ahead& ahead) {
  if (auto brought = bring_all(ahead); !brought) {
    if (!enough_) give_up(brought.error());
    return;
  }
  if (enough_) return;
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

Result<void> Pager::bring_all(const Ahead& ahead) {
  huge_.emplace(memory_);
  TRY(bring_working_set(ahead.working_set));
  if (ahead.record_ms > 0) record_working_set(ahead);
  std::vector<PageEntry> rest;
  std::vector<PageEntry> some(HugePages::kPages);
  uint64_t pages = memory_.ram_pages();
  for (uint64_t first = 0; first < pages && !enough_; first += HugePages::kPages) {
    TRY_ASSIGN(bool brought, bring_huge(first));
    if (brought) continue;
    auto part = std::span(some).first(std::min(HugePages::kPages, pages - first));
    TRY(snapshot_->find_range(kRamSpace, first, part));
    for (const PageEntry& entry : part) {
      if (entry.slot != kSlotZero) rest.push_back(entry);
    }
  }
  huge_.reset();
  return bring(rest, false);
}

Result<void> Pager::bring_working_set(const std::vector<uint64_t>& set) {
  uint64_t pages = memory_.ram_pages();
  // By number of huge page: those of the set that are in it, until it is asked for whole.
  std::unordered_map<uint64_t, size_t> count;
  for (uint64_t page : set) ++count[page / HugePages::kPages];
  std::unordered_set<uint64_t> whole;
  std::vector<PageEntry> single;
  for (uint64_t page : set) {
    if (enough_) return {};
    if (page >= pages) continue;
    uint64_t huge = page / HugePages::kPages;
    if (auto first = count.extract(huge); first && first.mapped() >= kHugeContent) {
      TRY(bring(single, true));
      single.clear();
      TRY_ASSIGN(bool brought, bring_huge(huge * HugePages::kPages));
      if (brought) whole.insert(huge);
    }
    if (whole.contains(huge)) continue;
    TRY_ASSIGN(PageEntry entry, snapshot_->find(kRamSpace, page));
    if (entry.slot != kSlotZero) single.push_back(entry);
  }
  return bring(single, true);
}

void Pager::record_working_set(const Ahead& ahead) {
  uint64_t step = ahead.record_quiet_ms > 0 ? ahead.record_quiet_ms : ahead.record_ms;
  std::unique_lock lock(mutex_);
  for (uint64_t waited = 0, seen = UINT64_MAX; waited < ahead.record_ms; waited += step) {
    if (std::exchange(seen, touched_.size()) == touched_.size()) break;
    changed_.wait_for(lock, std::chrono::milliseconds(step), [this] { return enough_.load(); });
    if (enough_) return;
  }
  lock.unlock();
  if (ahead.on_recorded) ahead.on_recorded(touched());
}

Result<void> Pager::bring(std::span<PageEntry> entries, bool keep_order) {
  auto in_file = [](const PageEntry& a, const PageEntry& b) {
    return std::pair(a.slot, a.offset) < std::pair(b.slot, b.offset);
  };
  if (!keep_order) std::ranges::sort(entries, in_file);
  while (!entries.empty() && !enough_) {
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
  std::vector<Filled> filled;
  filled.reserve(entries.size());
  for (const PageEntry& entry : entries) {
    filled.push_back({entry.page, buffer.data() + (entry.offset - start)});
  }
  return place(filled);
}

bool Pager::any_done(uint64_t first) const {
  auto words = std::span(done_).subspan(first / 64, HugePages::kPages / 64);
  return std::ranges::any_of(words, [](uint64_t word) { return word != 0; });
}

Result<std::optional<Pager::HugePlan>> Pager::plan_huge(uint64_t first) const {
  HugePlan plan;
  plan.entries.resize(HugePages::kPages);
  TRY(snapshot_->find_range(kRamSpace, first, plan.entries));
  std::erase_if(plan.entries, [](const PageEntry& entry) { return entry.slot == kSlotZero; });
  if (plan.entries.size() < kHugeContent) return std::nullopt;
  for (std::span<const PageEntry> rest(plan.entries); !rest.empty();) {
    size_t count = 1;
    while (count < rest.size() && side_by_side(rest[count - 1], rest[count])) ++count;
    plan.runs.push_back(rest.first(count));
    rest = rest.subspan(count);
  }
  if (plan.runs.size() > kHugeRuns) return std::nullopt;
  return plan;
}

Result<bool> Pager::bring_huge(uint64_t first) {
  std::byte* aside = huge_->aside(first);
  if (aside == nullptr) return false;
  {
    std::lock_guard lock(mutex_);
    if (any_done(first)) return false;
  }
  TRY_ASSIGN(auto plan, plan_huge(first));
  if (!plan) return false;
  std::vector<Filled> filled;
  for (std::span<const PageEntry> run : plan->runs) {
    uint64_t bytes = run.size() * kPageBytes;
    std::byte* data = aside + (run[0].page - first) * kPageBytes;
    TRY_ASSIGN(auto file, snapshot_->file(run[0].slot));
    // Where it goes on in the file, what follows is wanted next.
    file->will_need(run[0].offset, bytes + (plan->runs.size() == 1 ? kReadAheadBytes : 0));
    TRY(file->read(run[0].offset, std::span(data, bytes)));
    for (size_t i = 0; i < run.size(); ++i) {
      filled.push_back({run[i].page, data + i * kPageBytes});
      TRY(snapshot_->check(kRamSpace, run[i], std::span(filled.back().data, kPageBytes)));
    }
  }
  counters_.background.fetch_add(filled.size(), std::memory_order_relaxed);
  {
    std::lock_guard lock(mutex_);
    bool put = false;
    if (!any_done(first)) {
      TRY_ASSIGN(put, huge_->put(first));
    }
    if (put) {
      for (uint64_t page = first; page < first + HugePages::kPages; ++page) set_done(page);
      uint64_t number = first / HugePages::kPages;
      huge_done_[number / 64] |= 1ull << (number % 64);
      counters_.huge.fetch_add(1, std::memory_order_relaxed);
      TRY(userfault_.wake(memory_.host(first), HugePages::kPages * kPageBytes));
      return true;
    }
  }
  // Somebody did not wait for it to be whole: page by page, from where they are.
  TRY(place(filled));
  huge_->drop(first);
  return true;
}

}  // namespace snapshot
