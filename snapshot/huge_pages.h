// Guest memory that is filled 2 MiB at a time, aside, and put in its place at once by mremap(2):
// whoever touches it finds nothing, or all of it. Half the cost of providing its 4 KiB pages one
// after the other, and the guest has huge pages again where the host gives them.
//
// Used by one thread; who else changes the memory map of guest memory, or has pages provided there,
// is kept out by the caller.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "snapshot/types.h"
#include "vmm/base/mapping.h"
#include "vmm/base/result.h"
#include "vmm/guest_memory.h"

namespace snapshot {

class HugePages {
 public:
  static constexpr uint64_t kPages = base::Mapping::kHugePage / kPageBytes;

  // Takes address space only. `memory` outlives it.
  explicit HugePages(vmm::GuestMemory& memory);

  // Where the content of kPages RAM pages from `first`, a multiple of kPages, is to be written:
  // zero at first. Null: these are no huge page of guest memory, or this host cannot.
  std::byte* aside(uint64_t first) const;
  // Puts it in the place of what is there; watched by a userfaultfd or not, it is plain memory
  // afterwards. False: it could not, and everything is as before.
  base::Result<bool> put(uint64_t first);
  // Gives what was written aside back to the host.
  void drop(uint64_t first) const;

 private:
  struct Part {
    uint64_t first = 0, pages = 0;  // RAM pages of a region
    std::byte* place = nullptr;
    // Of the region's size: what comes from side by side is one mapping again where it goes.
    base::Mapping aside;
  };
  const Part* part_of(uint64_t first) const;
  std::vector<Part> parts_;
  bool able_ = true;
};

}  // namespace snapshot
