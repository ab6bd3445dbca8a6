#include "snapshot/eager.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <vector>

namespace snapshot {

using base::fail;
using base::Result;

namespace {

constexpr uint64_t kReadBytes = 1 << 20;
constexpr unsigned kReadsAtOnce = 8;
constexpr uint64_t kLookupPages = 4096;

// Pages that lie side by side in a file and in memory.
struct Piece : IoQueue::Operation {
  std::span<const PageEntry> entries;
  iovec vector{};
  uint64_t done = 0;
  File* file = nullptr;
  bool free = true;
};

class Filler {
 public:
  Filler(vmm::GuestMemory& memory, const Snapshot& snapshot, std::unique_ptr<IoQueue> queue)
      : memory_(memory), snapshot_(snapshot), queue_(std::move(queue)) {
    for (auto& piece : pieces_) piece = std::make_unique<Piece>();
  }

  Result<void> fill() {
    std::vector<PageEntry> wanted;
    std::vector<PageEntry> some(kLookupPages);
    for (uint64_t page = 0; page < memory_.ram_pages(); page += kLookupPages) {
      auto part = std::span(some).first(std::min(kLookupPages, memory_.ram_pages() - page));
      TRY(snapshot_.find_range(kRamSpace, page, part));
      for (const PageEntry& entry : part) {
        if (entry.slot != kSlotZero) wanted.push_back(entry);
      }
    }
    std::ranges::sort(wanted, [](const PageEntry& a, const PageEntry& b) {
      return std::pair(a.slot, a.offset) < std::pair(b.slot, b.offset);
    });
    for (std::span<const PageEntry> rest(wanted); !rest.empty();) {
      size_t count = length_of_piece(rest);
      TRY(read(rest.first(count)));
      rest = rest.subspan(count);
    }
    while (queue_->in_flight() > 0) TRY(collect());
    return {};
  }

 private:
  size_t length_of_piece(std::span<const PageEntry> rest) const {
    std::byte* start = memory_.host(rest[0].page);
    size_t count = 1;
    while (count < rest.size() && count < kReadBytes / kPageBytes &&
           rest[count].slot == rest[0].slot &&
           rest[count].offset == rest[0].offset + count * kPageBytes &&
           memory_.host(rest[count].page) == start + count * kPageBytes) {
      ++count;
    }
    return count;
  }

  Result<void> read(std::span<const PageEntry> entries) {
    Piece* piece = nullptr;
    while (piece == nullptr) {
      for (auto& candidate : pieces_) {
        if (candidate->free) piece = candidate.get();
      }
      if (piece == nullptr) TRY(collect());
    }
    piece->free = false;
    piece->entries = entries;
    piece->done = 0;
    return submit(*piece);
  }

  Result<void> submit(Piece& piece) {
    const PageEntry& first = piece.entries.front();
    piece.vector = {memory_.host(first.page) + piece.done,
                    piece.entries.size() * kPageBytes - piece.done};
    TRY_ASSIGN(piece.file, file_of(first.slot));
    TRY(queue_->readv(piece, *piece.file, {&piece.vector, 1}, first.offset + piece.done));
    return queue_->submit();
  }

  Result<void> collect() {
    auto* done = queue_->wait_completion();
    if (done == nullptr) return fail("the snapshot's reads got lost");
    auto& piece = static_cast<Piece&>(*done);
    if (piece.result < 0) return fail("read " + piece.file->name(), -piece.result);
    if (piece.result == 0) return fail(piece.file->name() + " is shorter than the snapshot says");
    piece.done += static_cast<uint64_t>(piece.result);
    if (piece.done < piece.entries.size() * kPageBytes) {
      piece.done -= piece.done % kPageBytes;
      return submit(piece);
    }
    for (const PageEntry& entry : piece.entries) {
      TRY(snapshot_.check(kRamSpace, entry, std::span(memory_.host(entry.page), kPageBytes)));
    }
    piece.free = true;
    return {};
  }

  // Past the page cache; entries come sorted by slot, so that one is open at a time, and those of
  // reads still in flight.
  Result<File*> file_of(Slot slot) {
    if (auto found = files_.find(slot); found != files_.end()) return found->second.get();
    TRY_ASSIGN(auto file, snapshot_.open_direct(slot));
    return files_.emplace(slot, std::move(file)).first->second.get();
  }

  vmm::GuestMemory& memory_;
  const Snapshot& snapshot_;
  std::map<Slot, std::unique_ptr<File>> files_;
  std::array<std::unique_ptr<Piece>, kReadsAtOnce> pieces_;
  std::unique_ptr<IoQueue> queue_;  // last: waits for the reads
};

}  // namespace

Result<void> check_memory(const vmm::GuestMemory& memory, const Snapshot& snapshot) {
  uint64_t pages = snapshot.pages(kRamSpace);
  if (pages == memory.ram_pages()) return {};
  return fail(
      fmt::format("the snapshot has {} pages of RAM, its machine {}", pages, memory.ram_pages()));
}

Result<void> fill_memory(vmm::GuestMemory& memory, Store& store, const Snapshot& snapshot) {
  TRY_ASSIGN(auto queue, store.storage().make_queue(kReadsAtOnce));
  return Filler(memory, snapshot, std::move(queue)).fill();
}

}  // namespace snapshot
