#include "snapshot/resident_pages.h"

#include <fcntl.h>

#include <algorithm>
#include <array>

#include "snapshot/types.h"
#include "vmm/base/fd.h"

namespace snapshot {

namespace {
constexpr uint64_t kPresentOrSwapped = 1ull << 63 | 1ull << 62;
constexpr uint64_t kEntriesAtOnce = 4096;
}  // namespace

base::Result<void> find_resident(const std::byte* start, uint64_t bytes, std::span<uint64_t> bits) {
  TRY_ASSIGN(base::Fd pagemap, base::open_file("/proc/self/pagemap", O_RDONLY));
  uint64_t first = reinterpret_cast<uintptr_t>(start) / kPageBytes;
  uint64_t pages = bytes / kPageBytes;
  std::array<uint64_t, kEntriesAtOnce> entries;
  for (uint64_t page = 0; page < pages; page += kEntriesAtOnce) {
    uint64_t count = std::min(kEntriesAtOnce, pages - page);
    TRY(base::read_exact(pagemap.get(), entries.data(), count * sizeof entries[0],
                         (first + page) * sizeof entries[0]));
    for (uint64_t i = 0; i < count; ++i) {
      if (entries[i] & kPresentOrSwapped) bits[(page + i) / 64] |= 1ull << ((page + i) % 64);
    }
  }
  return {};
}

}  // namespace snapshot
