#include "snapshot/space_reader.h"

#include <algorithm>
#include <cstring>

namespace snapshot {
namespace {

using base::Result;

constexpr uint64_t kReadBytes = 1 << 20;
constexpr uint64_t kGapBytes = 64 << 10;  // reading on is cheaper than reading anew

// Slots as a visitor tells them apart: all that is stored is one.
Slot kind_of(const PageEntry& entry) {
  return entry.slot == kSlotZero || entry.slot == kSlotBase ? entry.slot : 0;
}

}  // namespace

SpaceReader::SpaceReader(const Snapshot& snapshot, Space space)
    : snapshot_(snapshot), space_(space), piece_(kPiecePages * kPageBytes), buffer_(kReadBytes) {}

Result<void> SpaceReader::read(const Visitor& visitor, const Progress& progress, uint64_t done,
                               uint64_t total) {
  uint64_t pages = snapshot_.pages(space_);
  for (uint64_t first = 0; first < pages; first += kPiecePages) {
    TRY(report(progress, done + first * kPageBytes, total));
    TRY(read_piece(first, std::min(kPiecePages, pages - first), visitor));
  }
  return report(progress, done + pages * kPageBytes, total);
}

Result<void> SpaceReader::read_piece(uint64_t first, uint64_t count, const Visitor& visitor) {
  entries_.assign(count, {});
  TRY(snapshot_.find_range(space_, first, entries_));
  if (visitor.data) TRY(read_data(first));
  return visit(visitor, first);
}

Result<void> SpaceReader::read_data(uint64_t first) {
  stored_.clear();
  std::ranges::copy_if(entries_, std::back_inserter(stored_),
                       [](const PageEntry& entry) { return kind_of(entry) == 0; });
  std::ranges::sort(stored_, {}, [](const PageEntry& e) { return std::pair(e.slot, e.offset); });
  for (std::span<const PageEntry> rest = stored_; !rest.empty();) {
    size_t run = 1;
    while (run < rest.size() && rest[run].slot == rest[0].slot &&
           rest[run].offset - rest[run - 1].offset <= kGapBytes &&
           rest[run].offset - rest[0].offset <= kReadBytes - kPageBytes) {
      ++run;
    }
    TRY(read_run(rest.first(run), first));
    rest = rest.subspan(run);
  }
  return {};
}

Result<void> SpaceReader::read_run(std::span<const PageEntry> entries, uint64_t first) {
  uint64_t start = entries.front().offset;
  auto data = std::span(buffer_).first(entries.back().offset - start + kPageBytes);
  TRY_ASSIGN(auto file, snapshot_.file(entries.front().slot));
  TRY(file->read(start, data));
  for (const PageEntry& entry : entries) {
    auto page = data.subspan(entry.offset - start, kPageBytes);
    TRY(snapshot_.check(space_, entry, page));
    std::memcpy(piece_.data() + (entry.page - first) * kPageBytes, page.data(), kPageBytes);
  }
  return {};
}

Result<void> SpaceReader::visit(const Visitor& visitor, uint64_t first) const {
  for (size_t at = 0; at < entries_.size();) {
    Slot kind = kind_of(entries_[at]);
    size_t end = at + 1;
    while (end < entries_.size() && kind_of(entries_[end]) == kind) ++end;
    if (kind == kSlotZero) {
      if (visitor.zero) TRY(visitor.zero(first + at, end - at));
    } else if (kind == kSlotBase) {
      if (visitor.base) TRY(visitor.base(first + at, end - at));
    } else if (visitor.data) {
      auto data = std::span(piece_).subspan(at * kPageBytes, (end - at) * kPageBytes);
      TRY(visitor.data(first + at, data));
    }
    at = end;
  }
  return {};
}

}  // namespace snapshot
