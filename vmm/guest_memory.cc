#include "vmm/guest_memory.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cassert>
#include <cerrno>
#include <cstring>

#include "vmm/layout.h"

namespace vmm {

using base::fail;
using base::fail_errno;
using base::Result;

constexpr uint64_t kHugePage = base::Mapping::kHugePage;

// Each may cut a mapping in three; half of vm.max_map_count is then still there for all else.
constexpr uint32_t kMostReplacedRuns = 16'000;

namespace {

Result<base::Mapping> map_region(GuestMemory::Backing backing, uint64_t bytes, uint64_t offset) {
  switch (backing.kind) {
    case GuestMemory::Backing::Kind::kShared:
      return base::Mapping::shared(backing.fd, bytes, offset);
    case GuestMemory::Backing::Kind::kCopy:
      return base::Mapping::private_copy(backing.fd, bytes, offset);
    case GuestMemory::Backing::Kind::kZero:
      break;
  }
  return base::Mapping::huge(bytes);
}

}  // namespace

Result<std::unique_ptr<GuestMemory>> GuestMemory::create(uint64_t bytes, Backing backing) {
  if (bytes == 0 || bytes % kPageSize != 0) return fail("guest memory must be whole pages");
  std::unique_ptr<GuestMemory> memory(new GuestMemory());
  uint64_t low = std::min(bytes, layout::kLowRamEnd.value);
  Region wanted[] = {{Gpa{0}, low, nullptr}, {layout::kHighRamStart, bytes - low, nullptr}};
  uint64_t offset = 0;
  for (Region& region : wanted) {
    if (region.size == 0) continue;
    TRY_ASSIGN(base::Mapping mapping, map_region(backing, region.size, offset));
    offset += region.size;
    region.host = mapping.data();
    memory->mappings_.push_back(std::move(mapping));
    memory->regions_.push_back(region);
    memory->dirty_.emplace_back((region.size / kPageSize + 63) / 64);
  }
  memory->size_ = bytes;
  memory->is_copy_ = backing.kind == Backing::Kind::kCopy;
  if (memory->is_copy_)
    memory->replaced_ = base::ZeroedArray<uint64_t>((memory->ram_pages() + 63) / 64);
  return memory;
}

// The first region's pages fill whole words where there is a second one.
static_assert(layout::kLowRamEnd.gfn().value % 64 == 0);

std::optional<uint64_t> GuestMemory::ram_page(Gfn gfn) const {
  uint64_t first = 0;
  for (const Region& region : regions_) {
    uint64_t pages = region.size >> kPageShift;
    uint64_t start = region.start.gfn().value;
    if (gfn.value >= start && gfn.value - start < pages) return first + (gfn.value - start);
    first += pages;
  }
  return {};
}

Gpa GuestMemory::gpa_of(uint64_t ram_page) const {
  assert(ram_page < ram_pages());
  uint64_t offset = ram_page << kPageShift;
  const Region* region = regions_.data();
  for (; offset >= region->size; ++region) offset -= region->size;
  return region->start + offset;
}

std::byte* GuestMemory::host(uint64_t ram_page) const {
  assert(ram_page < ram_pages());
  uint64_t offset = ram_page << kPageShift;
  const Region* region = regions_.data();
  for (; offset >= region->size; ++region) offset -= region->size;
  return region->host + offset;
}

Result<const GuestMemory::Region*> GuestMemory::find(Gpa gpa, uint64_t length) const {
  for (const Region& region : regions_) {
    if (region.contains(gpa, length)) return &region;
  }
  return fail(fmt::format("guest address {:#x} with length {:#x} is not RAM", gpa.value, length));
}

std::optional<uint64_t> GuestMemory::ram_page_at(const std::byte* host) const {
  uint64_t first = 0;
  for (const Region& region : regions_) {
    auto offset = reinterpret_cast<uintptr_t>(host) - reinterpret_cast<uintptr_t>(region.host);
    if (offset < region.size) return first + (offset >> kPageShift);
    first += region.size >> kPageShift;
  }
  return std::nullopt;
}

Result<std::span<const std::byte>> GuestMemory::view(Gpa gpa, uint64_t length) const {
  TRY_ASSIGN(const Region* region, find(gpa, length));
  return std::span<const std::byte>(region->host + (gpa.value - region->start.value), length);
}

Result<std::span<std::byte>> GuestMemory::dma_target(Gpa gpa, uint64_t length) {
  TRY_ASSIGN(const Region* region, find(gpa, length));
  return std::span<std::byte>(region->host + (gpa.value - region->start.value), length);
}

Result<void> GuestMemory::read(Gpa gpa, std::span<std::byte> into) const {
  TRY_ASSIGN(auto from, view(gpa, into.size()));
  std::memcpy(into.data(), from.data(), into.size());
  return {};
}

Result<void> GuestMemory::write(Gpa gpa, std::span<const std::byte> from) {
  TRY_ASSIGN(auto target, dma_target(gpa, from.size()));
  std::memcpy(target.data(), from.data(), from.size());
  mark_dirty(gpa, from.size());
  return {};
}

Result<void> GuestMemory::fill_zero(Gpa gpa, uint64_t length) {
  TRY_ASSIGN(auto target, dma_target(gpa, length));
  std::memset(target.data(), 0, length);
  mark_dirty(gpa, length);
  return {};
}

// What madvise() drops of a copy is the template's content again, unless the pages are the copy's
// own from then on. False where that would take too many mappings.
Result<bool> GuestMemory::detach(std::span<std::byte> bytes) {
  const uint64_t first = ram_page_at(bytes.data()).value();
  const uint64_t end = first + (bytes.size() >> kPageShift);
  uint64_t new_pages = 0;
  for (uint64_t page = first; page < end; ++page) {
    new_pages += (~replaced_[page / 64] >> (page % 64)) & 1;
  }
  if (new_pages == 0) return true;
  if (replaced_runs_ >= kMostReplacedRuns) return false;
  if (::mmap(bytes.data(), bytes.size(), PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED) {
    if (errno == ENOMEM) return false;
    return fail_errno("detach guest memory from its template");
  }
  ++replaced_runs_;
  for (uint64_t page = first; page < end; ++page) replaced_[page / 64] |= 1ull << (page % 64);
  return true;
}

bool GuestMemory::drop(std::span<std::byte> bytes) const {
  // Each huge page by itself: while a machine is restored, one may become another mapping in the
  // middle of the call (snapshot/huge_pages.h), and madvise() does not go on in the next mapping.
  while (!bytes.empty()) {
    uint64_t left = kHugePage - reinterpret_cast<uintptr_t>(bytes.data()) % kHugePage;
    auto part = bytes.first(std::min<uint64_t>(left, bytes.size()));
    if (::madvise(part.data(), part.size(), MADV_DONTNEED) != 0) return false;
    bytes = bytes.subspan(part.size());
  }
  return true;
}

Result<bool> GuestMemory::discard(Gpa gpa, uint64_t length) {
  if (gpa.value % kPageSize != 0 || length % kPageSize != 0) {
    return fail(fmt::format("discard of {:#x} bytes at {:#x}: not whole pages", length, gpa.value));
  }
  TRY_ASSIGN(auto target, dma_target(gpa, length));
  if (is_copy_) {
    TRY_ASSIGN(const bool own, detach(target));
    if (!own) return false;
  }
  if (!drop(target)) {
    return fail_errno(
        fmt::format("discard {:#x} bytes of guest memory at {:#x}", length, gpa.value));
  }
  mark_dirty(gpa, length);
  return true;
}

Result<uint16_t> GuestMemory::load_acquire16(Gpa gpa) const {
  if (gpa.value % 2 != 0) return fail(fmt::format("ring index at odd address {:#x}", gpa.value));
  TRY_ASSIGN(const Region* region, find(gpa, 2));
  auto* place = reinterpret_cast<uint16_t*>(region->host + (gpa.value - region->start.value));
  return std::atomic_ref(*place).load(std::memory_order_acquire);
}

Result<void> GuestMemory::store_release16(Gpa gpa, uint16_t value) {
  if (gpa.value % 2 != 0) return fail(fmt::format("ring index at odd address {:#x}", gpa.value));
  TRY_ASSIGN(const Region* region, find(gpa, 2));
  auto* place = reinterpret_cast<uint16_t*>(region->host + (gpa.value - region->start.value));
  std::atomic_ref(*place).store(value, std::memory_order_release);
  mark_dirty(gpa, 2);
  return {};
}

// Release: whoever takes the mark sees the data that was written before it.
void GuestMemory::DirtyMap::mark(size_t word, uint64_t bits) {
  std::atomic_ref(words[word]).fetch_or(bits, std::memory_order_release);
  std::atomic_ref(summary[word / 64]).fetch_or(1ull << (word % 64), std::memory_order_release);
}

void GuestMemory::mark_dirty(Gpa gpa, uint64_t length) {
  if (length == 0) return;
  for (size_t i = 0; i < regions_.size(); ++i) {
    const Region& region = regions_[i];
    if (!region.contains(gpa, length)) continue;
    uint64_t first = (gpa.value - region.start.value) / kPageSize;
    uint64_t last = (gpa.value - region.start.value + length - 1) / kPageSize;
    for (uint64_t page = first; page <= last; ++page) {
      dirty_[i].mark(page / 64, 1ull << (page % 64));
    }
    return;
  }
}

bool GuestMemory::is_dirty(Gfn gfn) const {
  for (size_t i = 0; i < regions_.size(); ++i) {
    if (!regions_[i].contains(Gpa{gfn.value << kPageShift}, kPageSize)) continue;
    uint64_t page = gfn.value - regions_[i].start.gfn().value;
    std::atomic_ref word(dirty_[i].words[page / 64]);
    return (word.load(std::memory_order_acquire) >> (page % 64)) & 1;
  }
  return false;
}

void GuestMemory::take_dirty(size_t index, std::span<uint64_t> into) {
  DirtyMap& map = dirty_[index];
  assert(into.size() >= map.words.size());
  for (size_t i = 0; i < map.summary.size(); ++i) {
    std::atomic_ref summary(map.summary[i]);
    if (summary.load(std::memory_order_relaxed) == 0) continue;
    // The summary first: a mark that is made meanwhile sets it again.
    uint64_t some = summary.exchange(0, std::memory_order_acquire);
    for (; some != 0; some &= some - 1) {
      size_t word = i * 64 + static_cast<size_t>(std::countr_zero(some));
      into[word] |= std::atomic_ref(map.words[word]).exchange(0, std::memory_order_acquire);
    }
  }
}

void GuestMemory::peek_dirty(size_t index, std::span<uint64_t> into) const {
  const DirtyMap& map = dirty_[index];
  assert(into.size() >= map.words.size());
  for (size_t i = 0; i < map.summary.size(); ++i) {
    uint64_t some = std::atomic_ref(map.summary[i]).load(std::memory_order_acquire);
    for (; some != 0; some &= some - 1) {
      size_t word = i * 64 + static_cast<size_t>(std::countr_zero(some));
      into[word] |= std::atomic_ref(map.words[word]).load(std::memory_order_acquire);
    }
  }
}

}  // namespace vmm
