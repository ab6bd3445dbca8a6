#include "snapshot/store/verify.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <thread>

#include "snapshot/store/store.h"

namespace snapshot {

namespace {

constexpr uint64_t kChunkBytes = 1 << 20;
constexpr size_t kPiecePages = 16 << 10;  // 64 MiB where they are dense
constexpr unsigned kMaxThreads = 8;
constexpr uint64_t kBytesForAThread = 8 << 20;

struct StoredPage {
  uint64_t offset;
  PageHash hash;
  uint32_t page;
  Space space;
  auto operator<=>(const StoredPage&) const = default;
};

// Memory for direct reads.
struct alignas(kPageBytes) Chunk {
  std::array<std::byte, kChunkBytes> bytes;
};

class Verifier {
 public:
  Verifier(Store& store, const Progress& progress) : store_(store), progress_(progress) {}

  base::Result<void> add(const Id& id);
  base::Result<VerifyReport> run();

 private:
  // What is read of one pack or layer.
  struct Source {
    SlotInfo info;
    std::vector<StoredPage> pages;
    std::vector<Id> snapshots;
  };
  void note(std::string file, uint64_t offset, std::string what, std::vector<Id> snapshots);
  // Reads the run's entries into sources_; nothing where a block is damaged.
  base::Result<std::vector<std::string>> add_run(Space space, const RunReader& run);
  // A part of a source that one thread reads.
  struct Piece {
    const Source* source;
    std::span<const StoredPage> pages;
    bool first;  // checks the file as a whole as well
  };
  void read(const Piece& piece);
  void read_pages(const Piece& piece, File& file, uint64_t size, Chunk& chunk);
  void done(uint64_t bytes);

  Store& store_;
  const Progress& progress_;
  std::map<std::string, Source> sources_;                  // by file name
  std::map<Id, std::vector<std::string>> sources_of_run_;  // of the runs read already
  std::map<std::string, std::vector<Id>> snapshots_of_run_;
  std::mutex mutex_;  // guards what follows
  VerifyReport report_;
  uint64_t done_bytes_ = 0, all_bytes_ = 0;
  std::atomic<bool> stopped_ = false;
};

void Verifier::note(std::string file, uint64_t offset, std::string what,
                    std::vector<Id> snapshots) {
  std::lock_guard lock(mutex_);
  ++report_.damage_count;
  if (report_.damages.size() >= kMaxDamages) return;
  report_.damages.push_back({std::move(file), offset, std::move(what), std::move(snapshots)});
}

base::Result<std::vector<std::string>> Verifier::add_run(Space space, const RunReader& run) {
  TRY(run.verify());
  TRY_ASSIGN(const auto slots, run.slots());
  std::vector<std::string> names;
  std::vector<Source*> by_slot;
  for (const SlotInfo& slot : slots) {
    names.push_back(slot.name());
    Source& source = sources_[names.back()];
    source.info = slot;
    by_slot.push_back(&source);
  }
  // Within the run's own pages nothing is left out; entries beyond the space are never looked up.
  TRY(run.for_each(0, kMaxPages + 1, [&](const PageEntry& entry) {
    if (entry.slot >= by_slot.size()) return;
    by_slot[entry.slot]->pages.push_back(
        {entry.offset, entry.hash, static_cast<uint32_t>(entry.page), space});
  }));
  return names;
}

base::Result<void> Verifier::add(const Id& id) {
  ++report_.snapshots;
  auto snapshot = store_.load(id);
  if (!snapshot) {
    note(snapshot_name(id), 0, snapshot.error().text(), {id});
    return {};
  }
  if (auto sections = (*snapshot)->sections(); !sections) {
    note(snapshot_name(id), 0, sections.error().text(), {id});
  }
  report_.bytes += (*snapshot)->manifest_bytes();
  for (const auto& index : (*snapshot)->indexes()) {
    for (const auto& run : index->runs()) {
      const Id& run_id = run->info().id;
      if (!sources_of_run_.contains(run_id)) {
        if (!report(progress_, 0, all_bytes_)) return base::fail("interrupted");
        auto names = add_run(index->space(), *run);
        report_.bytes += run->info().bytes;
        if (!names) note(run_name(run_id), 0, names.error().text(), {id});
        sources_of_run_[run_id] = names.value_or(std::vector<std::string>{});
      }
      for (const std::string& name : sources_of_run_[run_id]) {
        std::vector<Id>& users = sources_[name].snapshots;
        if (users.empty() || users.back() != id) users.push_back(id);
      }
    }
  }
  return {};
}

// Of the chunks in which there are pages.
uint64_t bytes_to_read(std::span<const StoredPage> pages) {
  uint64_t bytes = 0;
  uint64_t end = 0;
  for (const StoredPage& page : pages) {
    if (page.offset < end) continue;
    bytes += kChunkBytes;
    end = page.offset / kChunkBytes * kChunkBytes + kChunkBytes;
  }
  return bytes;
}

void Verifier::done(uint64_t bytes) {
  std::lock_guard lock(mutex_);
  done_bytes_ += bytes;
  if (progress_ && !progress_(done_bytes_, all_bytes_)) stopped_ = true;
}

void Verifier::read(const Piece& piece) {
  const Source& source = *piece.source;
  const std::string name = source.info.name();
  auto file = store_.storage().open(name, Storage::Access::kRead, Storage::Caching::kDirect);
  if (!file) return note(name, 0, file.error().text(), source.snapshots);
  auto size = (*file)->size();
  if (!size) return note(name, 0, size.error().text(), source.snapshots);
  if (piece.first && *size < source.info.bytes) {
    note(name, *size, fmt::format("it has {} bytes instead of {}", *size, source.info.bytes),
         source.snapshots);
  }
  auto chunk = std::make_unique<Chunk>();
  if (piece.first && source.info.kind == SlotInfo::Kind::kPack) {
    const auto header = std::span(chunk->bytes).first(kPackHeaderBytes);
    auto checked = (*file)->read(0, header);
    if (checked) checked = check_pack_header(store_.format(), source.info.id, header);
    if (!checked) note(name, 0, checked.error().text(), source.snapshots);
  }
  read_pages(piece, **file, *size, *chunk);
}

void Verifier::read_pages(const Piece& piece, File& file, uint64_t size, Chunk& chunk) {
  const Source& source = *piece.source;
  uint64_t pages = 0;
  uint64_t bytes = 0;
  const std::string name = source.info.name();
  for (auto page = piece.pages.begin(); page != piece.pages.end() && !stopped_;) {
    const uint64_t start = page->offset / kChunkBytes * kChunkBytes;
    const auto chunk_end = std::ranges::lower_bound(page, piece.pages.end(), start + kChunkBytes,
                                                    {}, &StoredPage::offset);
    const uint64_t first = page->offset - start;
    const uint64_t last = std::prev(chunk_end)->offset + kPageBytes - start;
    const uint64_t there =
        size > start ? std::min(last, (size - start) / kPageBytes * kPageBytes) : 0;
    std::string error;
    if (there > first) {
      auto read = file.read(start + first, std::span(chunk.bytes).subspan(first, there - first));
      if (!read) error = read.error().text();
      bytes += there - first;
    }
    for (; page != chunk_end; ++page) {
      ++pages;
      const uint64_t at = page->offset - start;
      std::string what = error;
      if (at + kPageBytes > there) {
        what = "it ends before";
      } else if (error.empty()) {
        if (store_.hash(std::span(chunk.bytes).subspan(at, kPageBytes)) == page->hash) continue;
        what = "the content has a wrong hash";
      }
      note(name, page->offset,
           fmt::format("page {} of {}: {}", page->page,
                       page->space == kRamSpace ? std::string("memory")
                                                : fmt::format("disk {}", page->space - 1),
                       what),
           source.snapshots);
    }
    done(kChunkBytes);
  }
  std::lock_guard lock(mutex_);
  report_.pages += pages;
  report_.bytes += bytes;
}

base::Result<VerifyReport> Verifier::run() {
  std::vector<Piece> work;
  for (auto& [name, source] : sources_) {
    std::ranges::sort(source.pages);
    const auto twice = std::ranges::unique(source.pages);
    source.pages.erase(twice.begin(), twice.end());
    std::span<const StoredPage> rest(source.pages);
    all_bytes_ += bytes_to_read(rest);
    bool first = true;
    do {
      const auto piece = rest.first(std::min(rest.size(), kPiecePages));
      rest = rest.subspan(piece.size());
      work.push_back({&source, piece, std::exchange(first, false)});
    } while (!rest.empty());
  }
  std::atomic<size_t> next = 0;
  auto worker = [&] {
    for (size_t i = next++; i < work.size() && !stopped_; i = next++) read(work[i]);
  };
  {
    std::vector<std::jthread> threads;
    const uint64_t useful = all_bytes_ / kBytesForAThread + 1;
    const uint64_t count = std::min<uint64_t>(
        useful, std::clamp(std::thread::hardware_concurrency(), 2u, kMaxThreads));
    for (uint64_t i = 1; i < count; ++i) threads.emplace_back(worker);
    worker();
  }
  if (stopped_) return base::fail("interrupted");
  return std::move(report_);
}

}  // namespace

base::Result<VerifyReport> verify_store(Store& store, const std::vector<Id>& ids,
                                        const Progress& progress) {
  // A prune that takes files away meanwhile would look like damage. Machines go on committing.
  TRY_ASSIGN(auto lock, store.lock(File::Lock::kShared));
  std::vector<Id> all = ids;
  if (all.empty()) {
    TRY_ASSIGN(const auto infos, store.list());
    for (const SnapshotInfo& info : infos) all.push_back(info.id);
  }
  Verifier verifier(store, progress);
  for (const Id& id : all) TRY(verifier.add(id));
  return verifier.run();
}

}  // namespace snapshot
