#include "vmm/dirty_log.h"

#include <algorithm>
#include <cassert>

namespace vmm {

using base::Result;

namespace {

// Calls each(slot, first RAM page, pages) for every region until one fails.
template <typename Each>
Result<void> for_each_slot(const GuestMemory& memory, Each each) {
  uint64_t first = 0;
  for (size_t slot = 0; slot < memory.regions().size(); ++slot) {
    uint64_t pages = memory.regions()[slot].size >> kPageShift;
    assert(first % 64 == 0);
    TRY(each(static_cast<uint32_t>(slot), first, pages));
    first += pages;
  }
  return {};
}

// The words of a bitmap of all RAM that belong to `pages` pages from `first`.
template <typename Word>
std::span<Word> part(std::span<Word> bitmap, uint64_t first, uint64_t pages) {
  return bitmap.subspan(first / 64, (pages + 63) / 64);
}

}  // namespace

Result<DirtyLog> DirtyLog::create(const KvmVm& vm, GuestMemory& memory, bool start) {
  TRY(vm.enable_manual_dirty_log(!start));
  DirtyLog log(vm, memory);
  TRY(log.make_slots(start ? KVM_MEM_LOG_DIRTY_PAGES : 0));
  log.started_ = start;
  return log;
}

Result<void> DirtyLog::make_slots(uint32_t flags) const {
  uint32_t slot = 0;
  for (const GuestMemory::Region& region : memory_->regions()) {
    TRY(vm_->set_memory(slot++, region.start, region.host, region.size, flags));
  }
  return {};
}

Result<void> DirtyLog::start() {
  if (started_) return {};
  // The same slots with another flag: KVM keeps what it has mapped.
  TRY(make_slots(KVM_MEM_LOG_DIRTY_PAGES));
  started_ = true;
  return {};
}

Result<void> DirtyLog::read(std::span<uint64_t> bitmap, bool take_marks) {
  assert(started_ && bitmap.size() >= words());
  return for_each_slot(
      *memory_, [&](uint32_t slot, uint64_t first, uint64_t pages) -> Result<void> {
        auto own = part(bitmap, first, pages);
        TRY(vm_->get_dirty_log(slot, own));
        take_marks ? memory_->take_dirty(slot, own) : memory_->peek_dirty(slot, own);
        return {};
      });
}

Result<void> DirtyLog::clear(uint64_t first_page, uint64_t count, std::span<const uint64_t> bits) {
  assert(started_ && count <= kMostPages && first_page % 64 == 0 && first_page + count <= pages());
  return for_each_slot(
      *memory_, [&](uint32_t slot, uint64_t first, uint64_t pages) -> Result<void> {
        uint64_t begin = std::max(first_page, first);
        uint64_t end = std::min(first_page + count, first + pages);
        if (begin >= end) return {};
        auto own = bits.subspan((begin - first_page) / 64);
        return vm_->clear_dirty_log(slot, begin - first, static_cast<uint32_t>(end - begin), own);
      });
}

}  // namespace vmm
