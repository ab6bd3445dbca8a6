// How the pages of a snapshot are kept: counted by kind, and by the file that has them.
//
// Any thread; reads the whole index, no page.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "snapshot/progress.h"
#include "snapshot/store/snapshot.h"
#include "vmm/base/result.h"

namespace snapshot {

struct PageCounts {
  struct InFile {
    std::string name;
    uint64_t pages = 0;
  };

  uint64_t data = 0;  // in files of the store
  uint64_t zero = 0;
  uint64_t base = 0;          // in the disk's base image
  std::vector<InFile> files;  // of `data`, by name

  uint64_t all() const { return data + zero + base; }
};

base::Result<PageCounts> count_pages(const Snapshot& snapshot, Space space,
                                     const Progress& progress);

}  // namespace snapshot
