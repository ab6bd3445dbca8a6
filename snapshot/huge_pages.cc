#include "snapshot/huge_pages.h"

#include <sys/mman.h>

#include <cerrno>

namespace snapshot {

using base::fail;
using base::Result;

namespace {
constexpr uint64_t kBytes = base::Mapping::kHugePage;
}

HugePages::HugePages(vmm::GuestMemory& memory) {
  uint64_t first = 0;
  for (const vmm::GuestMemory::Region& region : memory.regions()) {
    uint64_t pages = region.size / kPageBytes;
    bool aligned = first % kPages == 0 && reinterpret_cast<uintptr_t>(region.host) % kBytes == 0;
    // A host that promises no memory it has not (vm.overcommit_memory=2) may refuse as much again.
    // Made as guest memory is, and is again when it is no longer watched: the kernel would keep
    // apart what is put side by side otherwise.
    if (auto aside = base::Mapping::huge(region.size); aligned && aside) {
      parts_.push_back({first, pages, region.host, std::move(*aside)});
    }
    first += pages;
  }
}

const HugePages::Part* HugePages::part_of(uint64_t first) const {
  for (const Part& part : parts_) {
    if (first >= part.first && first - part.first + kPages <= part.pages) return &part;
  }
  return nullptr;
}

std::byte* HugePages::aside(uint64_t first) const {
  const Part* part = able_ && first % kPages == 0 ? part_of(first) : nullptr;
  return part ? part->aside.data() + (first - part->first) * kPageBytes : nullptr;
}

Result<bool> HugePages::put(uint64_t first) {
  const Part* part = part_of(first);
  uint64_t offset = (first - part->first) * kPageBytes;
  std::byte* place = part->place + offset;
  // What is left aside stays a mapping (Linux 5.7), so that nobody else is given its addresses.
  void* moved = ::mremap(part->aside.data() + offset, kBytes, kBytes,
                         MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP, place);
  if (moved == place) return true;
  int error = errno;
  able_ = false;  // too many mappings (vm.max_map_count), or an old kernel
  // Both are found out before the kernel has taken away what was there. If it has, the guest is
  // lost: msync() names memory that is not mapped.
  if (::msync(place, kBytes, MS_ASYNC) != 0) return fail("mremap of guest memory", error);
  return false;
}

void HugePages::drop(uint64_t first) const {
  const Part* part = part_of(first);
  ::madvise(part->aside.data() + (first - part->first) * kPageBytes, kBytes, MADV_DONTNEED);
}

}  // namespace snapshot
