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

Result<void> DirtyLog::fetch(std::span<uint64_t> bitmap) {
  assert(bitmap.size() >= words());
  return for_each_slot(memory_, [&](uint32_t slot, uint64_t first, uint64_t pages) -> Result<void> {
    TRY(vm_.get_dirty_log(slot, part(bitmap, first, pages)));
    memory_.take_dirty(slot, part(bitmap, first, pages));
    return {};
  });
}

Result<void> DirtyLog::peek(std::span<uint64_t> bitmap) {
  assert(bitmap.size() >= words());
  return for_each_slot(memory_, [&](uint32_t slot, uint64_t first, uint64_t pages) -> Result<void> {
    TRY(vm_.get_dirty_log(slot, part(bitmap, first, pages)));
    memory_.peek_dirty(slot, part(bitmap, first, pages));
    return {};
  });
}

Result<void> DirtyLog::clear(uint64_t first_page, uint64_t count, std::span<const uint64_t> bits) {
  assert(count <= kMostPages && first_page % 64 == 0 && first_page + count <= pages());
  return for_each_slot(memory_, [&](uint32_t slot, uint64_t first, uint64_t pages) -> Result<void> {
    uint64_t begin = std::max(first_page, first);
    uint64_t end = std::min(first_page + count, first + pages);
    if (begin >= end) return {};
    auto own = bits.subspan((begin - first_page) / 64);
    return vm_.clear_dirty_log(slot, begin - first, static_cast<uint32_t>(end - begin), own);
  });
}

}  // namespace vmm
