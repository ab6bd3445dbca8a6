// The parts a snapshot is made of, one by one (Google Benchmark): hashing and staging pages,
// writing a pack, reading the dirty log's bitmap, and the index: written, looked up, merged.
//
//   parts [--benchmark_filter=…]
//
// Files are made in a temporary directory (TMPDIR) and removed.
#include <benchmark/benchmark.h>

#include <cstdlib>
#include <filesystem>
#include <numeric>
#include <random>

#include "snapshot/page_bits.h"
#include "snapshot/staging.h"
#include "snapshot/store/index.h"
#include "snapshot/store/store.h"
#include "vmm/base/mapping.h"

namespace {

using snapshot::Id;
using snapshot::kPageBytes;
using snapshot::PageEntry;

// A store of its own for each benchmark.
class StoreFixture : public benchmark::Fixture {
 public:
  void SetUp(benchmark::State& state) override {
    directory_ = std::filesystem::temp_directory_path() / "minivmm-parts-XXXXXX";
    if (::mkdtemp(directory_.data()) == nullptr) return state.SkipWithError("no directory");
    auto made = snapshot::Store::open_or_create(directory_);
    if (!made) return state.SkipWithError(made.error().text().c_str());
    store = std::move(*made);
  }
  void TearDown(benchmark::State&) override {
    store.reset();
    std::filesystem::remove_all(directory_);
  }

 protected:
  // A run of `entries` pages, spread over `pages`; flat where they are all.
  snapshot::RunInfo write_run(uint64_t entries, uint64_t pages) {
    auto id = Id::random();
    auto file =
        store->storage().create(snapshot::run_name(*id), snapshot::Storage::Caching::kCached);
    auto kind = entries == pages ? snapshot::RunInfo::Kind::kFlat : snapshot::RunInfo::Kind::kDelta;
    snapshot::RunWriter writer(store->format(), **file, *id, snapshot::kRamSpace, kind, 1);
    for (uint64_t i = 0; i < entries; ++i) {
      PageEntry entry{
          .page = i * (pages / entries), .hash = i + 1, .slot = 0, .offset = (i + 1) * kPageBytes};
      if (!writer.add(entry)) std::abort();
    }
    snapshot::SlotInfo pack{.kind = snapshot::SlotInfo::Kind::kPack,
                            .disk = 0,
                            .id = *id,
                            .bytes = (entries + 1) * kPageBytes};
    return *writer.finish({&pack, 1});
  }

  std::unique_ptr<snapshot::Store> store;

 private:
  std::string directory_;
};

std::vector<std::byte> random_pages(uint64_t pages) {
  std::vector<std::byte> bytes(pages * kPageBytes);
  std::mt19937_64 random(1);
  for (size_t i = 0; i < bytes.size(); i += 8) {
    uint64_t word = random();
    std::memcpy(&bytes[i], &word, 8);
  }
  return bytes;
}

// NOLINTBEGIN(clang-analyzer-deadcode.DeadStores): the loop variable of the library
BENCHMARK_DEFINE_F(StoreFixture, HashPages)(benchmark::State& state) {
  auto pages = random_pages(4096);
  for (auto _ : state) {
    for (size_t i = 0; i < pages.size(); i += kPageBytes) {
      benchmark::DoNotOptimize(store->hash(std::span(pages).subspan(i, kPageBytes)));
    }
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(pages.size()));
}
BENCHMARK_REGISTER_F(StoreFixture, HashPages);

// Copies of 512 pages into the pool and what follows of it before the write.
BENCHMARK_DEFINE_F(StoreFixture, StagePages)(benchmark::State& state) {
  bool settle = state.range(0) != 0;
  auto pages = random_pages(512);
  snapshot::StagingPool pool;
  auto staging = snapshot::Staging::create(
      {.ram_pages = 512, .pool_pages = 1024}, pool,
      [this](const std::byte* page) { return store->hash({page, kPageBytes}); },
      [](uint64_t page) -> base::Result<PageEntry> { return PageEntry{.page = page}; },
      *store->storage().make_queue(32));
  if (!staging) return state.SkipWithError(staging.error().text().c_str());
  (*staging)->reserve(1024);
  for (auto _ : state) {
    for (uint64_t page = 0; page < 512; ++page) {
      benchmark::DoNotOptimize((*staging)->copy(page, &pages[page * kPageBytes]));
    }
    if (settle && !(*staging)->settle()) state.SkipWithError("settle");
  }
  state.SetBytesProcessed(state.iterations() * 512 * static_cast<int64_t>(kPageBytes));
}
BENCHMARK_REGISTER_F(StoreFixture, StagePages)->ArgName("hashed")->Arg(0)->Arg(1);

// 64 MiB into a file that has its size already, as a pack's pages are, and made durable.
BENCHMARK_DEFINE_F(StoreFixture, WritePack)(benchmark::State& state) {
  constexpr uint64_t kBytes = 64 << 20;
  const auto block = static_cast<uint64_t>(state.range(0)) << 10;
  const auto depth = static_cast<size_t>(state.range(1));
  auto data = base::Mapping::huge(kBytes);
  auto file = store->storage().create("tmp/pack", snapshot::Storage::Caching::kDirect);
  auto queue = store->storage().make_queue(64);
  if (!data || !file || !queue) return state.SkipWithError("no file");
  std::memset(data->data(), 1, kBytes);
  std::vector<snapshot::IoQueue::Operation> operations(depth);
  std::vector<iovec> pieces(depth);
  bool good = true;
  auto write = [&] {
    std::vector<size_t> free(depth);
    std::iota(free.begin(), free.end(), 0);
    for (uint64_t offset = 0; offset < kBytes || (*queue)->in_flight() > 0;) {
      if (offset < kBytes && !free.empty()) {
        const size_t i = free.back();
        free.pop_back();
        pieces[i] = {data->data() + offset, block};
        good &= (*queue)->writev(operations[i], **file, {&pieces[i], 1}, offset).has_value();
        good &= (*queue)->submit().has_value();
        offset += block;
        continue;
      }
      const auto* done = (*queue)->wait_completion();
      good &= done != nullptr && done->result == static_cast<int>(block);
      if (!good) return;
      free.push_back(static_cast<size_t>(done - operations.data()));
    }
    good &= (*file)->sync().has_value();
  };
  write();
  for (auto _ : state) write();
  if (!good) state.SkipWithError("write");
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(kBytes));
}
BENCHMARK_REGISTER_F(StoreFixture, WritePack)
    ->ArgNames({"KiB", "depth"})
    ->ArgsProduct({{64, 256, 1024}, {1, 4, 16}})
    ->UseRealTime();

// The bitmap of 16 GiB, one page of `every` dirty.
void scan_bitmap(benchmark::State& state) {
  constexpr uint64_t kPages = (16ull << 30) / kPageBytes;
  auto bits = snapshot::make_page_bits(kPages);
  auto every = static_cast<uint64_t>(state.range(0));
  for (uint64_t page = 0; page < kPages; page += every) bits[page / 64] |= 1ull << (page % 64);
  for (auto _ : state) {
    uint64_t sum = 0;
    snapshot::for_each_page(bits, 0, [&](uint64_t page) {
      sum += page;
      return true;
    });
    benchmark::DoNotOptimize(sum);
  }
}
BENCHMARK(scan_bitmap)->ArgName("every")->Arg(1)->Arg(64)->Arg(4096);

BENCHMARK_DEFINE_F(StoreFixture, WriteRun)(benchmark::State& state) {
  auto entries = static_cast<uint64_t>(state.range(0));
  for (auto _ : state) benchmark::DoNotOptimize(write_run(entries, 1 << 19));
  state.SetItemsProcessed(state.iterations() * state.range(0));
}
BENCHMARK_REGISTER_F(StoreFixture, WriteRun)->ArgName("entries")->Arg(1000)->Arg(1 << 19);

// A page somewhere in 2 GiB, through one flat run and `deltas` of 10,000 entries above it.
BENCHMARK_DEFINE_F(StoreFixture, Find)(benchmark::State& state) {
  constexpr uint64_t kPages = 1 << 19;
  snapshot::SpaceInfo space{.space = snapshot::kRamSpace, .pages = kPages, .runs = {}};
  for (int64_t i = 0; i < state.range(0); ++i) space.runs.push_back(write_run(10'000, kPages));
  space.runs.push_back(write_run(kPages, kPages));
  snapshot::SpaceIndex index(store->storage(), store->format(), space, 0, snapshot::kSlotZero);
  std::mt19937_64 random(2);
  for (auto _ : state) benchmark::DoNotOptimize(index.find(random() % kPages));
}
BENCHMARK_REGISTER_F(StoreFixture, Find)->ArgName("deltas")->Arg(0)->Arg(1)->Arg(11);

// Two runs of 10,000 entries into one.
BENCHMARK_DEFINE_F(StoreFixture, MergeRuns)(benchmark::State& state) {
  constexpr uint64_t kPages = 1 << 19;
  snapshot::SpaceInfo space{.space = snapshot::kRamSpace, .pages = kPages, .runs = {}};
  for (int i = 0; i < 2; ++i) space.runs.push_back(write_run(10'000, kPages));
  snapshot::SpaceIndex index(store->storage(), store->format(), space, 0, snapshot::kSlotZero);
  for (auto _ : state) {
    auto id = Id::random();
    auto file =
        store->storage().create(snapshot::run_name(*id), snapshot::Storage::Caching::kCached);
    auto merged = snapshot::merge_runs(store->format(), index, 2, **file, *id, snapshot::kSlotZero);
    if (!merged) state.SkipWithError(merged.error().text().c_str());
  }
  state.SetItemsProcessed(state.iterations() * 20'000);
}
BENCHMARK_REGISTER_F(StoreFixture, MergeRuns);
// NOLINTEND(clang-analyzer-deadcode.DeadStores)

}  // namespace

BENCHMARK_MAIN();
