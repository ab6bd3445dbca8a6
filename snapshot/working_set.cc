#include "snapshot/working_set.h"

#include <xxhash.h>

#include <algorithm>

#include "snapshot/page_bits.h"
#include "vmm/base/codec.h"

namespace snapshot {

using base::Result;

namespace {

// magic, count, hash of the pages, pages: 8 bytes each.
constexpr uint64_t kMagic = 0x31'53'57'4D'56'49'4E'4D;  // "MNIVMWS1"
constexpr uint64_t kHeaderBytes = 24;

std::string name_of(const Id& snapshot) { return "ws/" + snapshot.text(); }

}  // namespace

std::vector<uint64_t> load_working_set(Storage& storage, const Id& snapshot, uint64_t ram_pages) {
  auto file = storage.open(name_of(snapshot), Storage::Access::kRead, Storage::Caching::kCached);
  if (!file) return {};
  auto size = (*file)->size();
  if (!size || *size < kHeaderBytes || *size > kHeaderBytes + 8 * kMostWorkingSetPages) return {};
  std::vector<std::byte> bytes(*size);
  if (!(*file)->read(0, bytes)) return {};
  base::Decoder decoder(bytes);
  uint64_t magic = decoder.u64(), count = decoder.u64(), hash = decoder.u64();
  auto data = decoder.rest();
  if (magic != kMagic || count != data.size() / 8 || data.size() % 8 != 0) return {};
  if (XXH3_64bits(data.data(), data.size()) != hash) return {};
  PageBits seen = make_page_bits(ram_pages);
  std::vector<uint64_t> pages;
  pages.reserve(count);
  for (uint64_t i = 0; i < count; ++i) {
    uint64_t page = decoder.u64();
    if (page >= ram_pages || seen[page / 64] >> (page % 64) & 1) continue;
    seen[page / 64] |= 1ull << (page % 64);
    pages.push_back(page);
  }
  return pages;
}

Result<void> save_working_set(Storage& storage, const Id& snapshot,
                              const std::vector<uint64_t>& pages) {
  std::vector<std::byte> data;
  base::Encoder encoder(data);
  uint64_t count = std::min<uint64_t>(pages.size(), kMostWorkingSetPages);
  data.reserve(count * 8);
  for (uint64_t i = 0; i < count; ++i) encoder.u64(pages[i]);
  std::vector<std::byte> bytes;
  bytes.reserve(kHeaderBytes + data.size());
  base::Encoder header(bytes);
  header.u64(kMagic);
  header.u64(count);
  header.u64(XXH3_64bits(data.data(), data.size()));
  header.bytes(data);
  TRY(storage.make_directory("ws"));
  // Two restores may record at the same time: a name of its own for each, then a rename.
  TRY_ASSIGN(Id unique, Id::random());
  std::string temporary = "tmp/ws-" + unique.text();
  TRY_ASSIGN(auto file, storage.create(temporary, Storage::Caching::kCached));
  TRY(file->write(0, bytes));
  return storage.rename(temporary, name_of(snapshot));
}

Result<void> remove_working_set(Storage& storage, const Id& snapshot) {
  TRY_ASSIGN(bool there, storage.exists(name_of(snapshot)));
  return there ? storage.remove(name_of(snapshot)) : Result<void>{};
}

}  // namespace snapshot
