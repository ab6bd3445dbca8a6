#include "snapshot/staging.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "snapshot/store/format.h"
#include "vmm/guest_address.h"

namespace snapshot {

using base::fail;
using base::Result;

namespace {
// What the pack grows by where more is written than was expected.
constexpr uint64_t kGrowBytes = 64 << 20;
alignas(64) constexpr std::array<std::byte, kPageBytes> kZeroPage{};
}  // namespace

Result<std::unique_ptr<Staging>> Staging::create(const Options& options, StagingPool& pool,
                                                 Hasher hasher, Parent parent,
                                                 std::unique_ptr<IoQueue> queue) {
  std::unique_ptr<Staging> staging(
      new Staging(options, pool, std::move(hasher), std::move(parent), std::move(queue)));
  if (pool.pages != staging->pool_pages_) {
    pool = {};
    TRY_ASSIGN(pool.memory, base::Mapping::huge(staging->pool_pages_ * kPageBytes));
    pool.pages = staging->pool_pages_;
  }
  uint64_t index_bytes = staging->ram_pages_ * sizeof(uint32_t);
  index_bytes = (index_bytes + kPageBytes - 1) / kPageBytes * kPageBytes;
  if (pool.entry_of.size() != index_bytes) {
    TRY_ASSIGN(pool.entry_of, base::Mapping::anonymous(index_bytes));
  }
  return staging;
}

Staging::~Staging() {
  for (const Entry& entry : entries_) entry_of(entry.page) = 0;
}

uint32_t& Staging::entry_of(uint64_t page) {
  return reinterpret_cast<uint32_t*>(pool_.entry_of.data())[page];
}

Staging::Staging(const Options& options, StagingPool& pool, Hasher hasher, Parent parent,
                 std::unique_ptr<IoQueue> queue)
    : ram_pages_(options.ram_pages),
      pool_pages_(std::max(options.pool_pages, kSmallestPool)),
      hasher_(std::move(hasher)),
      parent_(std::move(parent)),
      pool_(pool),
      slot_entry_(pool_pages_, kNone),
      queue_(std::move(queue)) {
  zero_hash_ = hasher_(kZeroPage.data());
  for (unsigned i = 0; i < kQueueDepth; ++i) writes_.push_back(std::make_unique<Write>());
}

std::byte* Staging::slot_data(uint64_t position) const {
  return pool_.memory.data() + position % pool_pages_ * kPageBytes;
}

void Staging::reserve(uint64_t pages) {
  // Doubling, so that many small rounds do not copy the vectors each time.
  auto room = [pages](auto& vector) {
    if (vector.capacity() - vector.size() < pages) {
      vector.reserve(std::max(vector.capacity() * 2, vector.size() + pages));
    }
  };
  room(entries_);
  room(unsettled_);
  uint64_t last = std::min(pool_pages_, head_ + pages);
  for (; pool_.touched < last; ++pool_.touched) {
    *static_cast<volatile std::byte*>(slot_data(pool_.touched)) = std::byte{0};
  }
}

bool Staging::copy(uint64_t page, const std::byte* from) {
  uint32_t index = entry_of(page);
  bool new_slot = index == 0 || !entries_[index - 1].in_pool;
  if (new_slot && free_pages() == 0) return false;
  if (index == 0) {
    entries_.push_back({.page = page});
    index = entry_of(page) = static_cast<uint32_t>(entries_.size());
  }
  Entry& entry = entries_[index - 1];
  if (new_slot) {
    pool_.touched = std::max(pool_.touched, std::min(head_ + 1, pool_pages_));
    entry.position = head_++;
    entry.in_pool = true;
    slot_entry_[entry.position % pool_pages_] = index - 1;
  }
  std::memcpy(slot_data(entry.position), from, kPageBytes);
  ++counts_.copied;
  if (new_slot || entry.settled) unsettled_.push_back(index - 1);
  entry.settled = false;
  return true;
}

Result<void> Staging::settle() {
  for (uint32_t index : unsettled_) TRY(settle_entry(entries_[index]));
  unsettled_.clear();
  return {};
}

Result<void> Staging::settle_entry(Entry& entry) {
  if (!entry.in_pool || entry.settled) return {};
  const std::byte* data = slot_data(entry.position);
  entry.hash = hasher_(data);
  entry.settled = true;
  bool zero = entry.hash == zero_hash_ && std::memcmp(data, kZeroPage.data(), kPageBytes) == 0;
  TRY_ASSIGN(PageEntry before, parent_(entry.page));
  bool unchanged =
      zero ? before.slot == kSlotZero : before.slot < kSlotBase && before.hash == entry.hash;
  entry.content = unchanged ? Entry::Content::kUnchanged
                  : zero    ? Entry::Content::kZero
                            : Entry::Content::kData;
  if (unchanged) ++counts_.unchanged;
  if (entry.content != Entry::Content::kData) leave_pool(entry);
  return {};
}

// The page needs no slot any more. The slot taken last is given back at once, so that what stays
// lies side by side.
void Staging::leave_pool(Entry& entry) {
  slot_entry_[entry.position % pool_pages_] = kNone;
  entry.in_pool = false;
  while (head_ > written_ && slot_entry_[(head_ - 1) % pool_pages_] == kNone) --head_;
  advance_tail();
}

// What is at the tail and holds nothing is free again.
void Staging::advance_tail() {
  while (written_ < head_ && slot_entry_[written_ % pool_pages_] == kNone) ++written_;
  while (tail_ < written_ && slot_entry_[tail_ % pool_pages_] == kNone) ++tail_;
}

// Writes one run of slots: side by side in the pool and in the pack. False where nothing waits.
Result<bool> Staging::start_write(File& pack) {
  advance_tail();
  if (written_ == head_) return false;
  Write* write = free_write();
  while (write == nullptr) {
    TRY(collect(true));
    write = free_write();
  }
  write->position = written_;
  write->pages = 0;
  uint32_t first_place = 0;
  while (written_ < head_ && write->pages < kWritePages) {
    uint32_t index = slot_entry_[written_ % pool_pages_];
    if (index == kNone) break;
    if (write->pages > 0 && written_ % pool_pages_ == 0) break;  // the ring's end
    Entry& entry = entries_[index];
    // The older copy must be in the file before this one goes over it.
    while (entry.writing) TRY(collect(true));
    uint32_t place = entry.place;
    if (place == kNone) place = static_cast<uint32_t>(next_place_);
    if (write->pages == 0) first_place = place;
    if (place != first_place + write->pages) break;
    if (entry.place != kNone) ++counts_.rewritten;
    entry.place = place;
    next_place_ = std::max<uint64_t>(next_place_, place + 1ull);
    entry.writing = true;
    entry.in_pool = false;
    ++write->pages;
    ++written_;
  }
  write->free = false;
  write->done = 0;
  write->pack = &pack;
  counts_.written += write->pages;
  TRY(make_room(pack));
  TRY(submit(*write, kPackHeaderBytes + first_place * kPageBytes));
  return true;
}

Result<void> Staging::make_room(File& pack) {
  const uint64_t end = kPackHeaderBytes + next_place_ * kPageBytes;
  if (end <= pack_bytes_) return {};
  TRY_ASSIGN(pack_bytes_, pack.size());
  if (end <= pack_bytes_) return {};
  const uint64_t grown = std::max(end, pack_bytes_ + kGrowBytes);
  // On a disk that is nearly full less may do.
  if (!extend(pack, pack_bytes_, grown)) return extend(pack, pack_bytes_, end);
  pack_bytes_ = grown;
  return {};
}

Result<void> Staging::submit(Write& write, uint64_t offset) {
  write.vector = {slot_data(write.position) + write.done, write.pages * kPageBytes - write.done};
  TRY(queue_->writev(write, *write.pack, {&write.vector, 1}, offset));
  return queue_->submit();
}

Staging::Write* Staging::free_write() {
  for (auto& write : writes_) {
    if (write->free) return write.get();
  }
  return nullptr;
}

Result<void> Staging::collect(bool wait) {
  auto* done = wait ? queue_->wait_completion() : queue_->next_completion();
  if (wait && done == nullptr) return fail("the snapshot's writes got lost");
  for (; done != nullptr; done = queue_->next_completion()) {
    auto& write = static_cast<Write&>(*done);
    if (write.result < 0) return fail("write " + write.pack->name(), -write.result);
    write.done += static_cast<uint64_t>(write.result);
    uint64_t first = slot_entry_[write.position % pool_pages_];
    if (write.done < write.pages * kPageBytes) {
      if (write.result == 0) return fail("write " + write.pack->name(), ENOSPC);
      // O_DIRECT wants whole pages: what was begun is written again.
      write.done -= write.done % kPageBytes;
      TRY(submit(write, kPackHeaderBytes + entries_[first].place * kPageBytes + write.done));
      continue;
    }
    for (uint64_t i = 0; i < write.pages; ++i) {
      uint32_t& index = slot_entry_[(write.position + i) % pool_pages_];
      entries_[index].writing = false;
      index = kNone;
    }
    write.free = true;
  }
  advance_tail();
  return {};
}

Result<void> Staging::relieve(File& pack, uint64_t wanted_free) {
  TRY(collect(false));
  while (head_ - written_ > pool_pages_ / 2 || free_pages() < wanted_free) {
    TRY_ASSIGN(bool started, start_write(pack));
    if (started) continue;
    if (free_pages() >= wanted_free || queue_->in_flight() == 0) break;
    TRY(collect(true));
  }
  return {};
}

Result<void> Staging::flush(File& pack) {
  TRY(settle());
  for (bool more = true; more;) {
    TRY_ASSIGN(more, start_write(pack));
  }
  while (queue_->in_flight() > 0) TRY(collect(true));
  return {};
}

std::vector<PageEntry> Staging::take_entries(Slot slot) {
  std::vector<PageEntry> pages;
  pages.reserve(entries_.size());
  for (const Entry& entry : entries_) {
    switch (entry.content) {
      case Entry::Content::kUnchanged:
        break;
      case Entry::Content::kZero:
        ++counts_.zero;
        pages.push_back({entry.page, 0, kSlotZero, 0});
        break;
      case Entry::Content::kData:
        ++counts_.data;
        pages.push_back(
            {entry.page, entry.hash, slot, kPackHeaderBytes + entry.place * kPageBytes});
        break;
    }
  }
  std::ranges::sort(pages, {}, &PageEntry::page);
  return pages;
}

}  // namespace snapshot
