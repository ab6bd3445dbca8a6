// Reads a page space of a snapshot from one end to the other, as exports do: verified, by large
// reads in the order in which the pages lie in their files, handed on in the order of their
// numbers.
//
// Owned and used by one thread; the snapshot outlives it.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "snapshot/progress.h"
#include "snapshot/store/snapshot.h"
#include "snapshot/types.h"
#include "vmm/base/result.h"

namespace snapshot {

class SpaceReader {
 public:
  // Who wants what; what is empty is left out. Runs of pages, ascending, each at most kPiecePages.
  struct Visitor {
    std::function<base::Result<void>(uint64_t first, std::span<const std::byte> data)> data;
    std::function<base::Result<void>(uint64_t first, uint64_t count)> zero;
    std::function<base::Result<void>(uint64_t first, uint64_t count)> base;
  };

  // Pages looked at in one go: what is held in memory.
  static constexpr uint64_t kPiecePages = 2048;

  SpaceReader(const Snapshot& snapshot, Space space);

  // All of the space. `progress` counts bytes from `done` on, of `total`.
  base::Result<void> read(const Visitor& visitor, const Progress& progress, uint64_t done,
                          uint64_t total);

 private:
  base::Result<void> read_piece(uint64_t first, uint64_t count, const Visitor& visitor);
  base::Result<void> read_data(uint64_t first);
  base::Result<void> read_run(std::span<const PageEntry> entries, uint64_t first);
  base::Result<void> visit(const Visitor& visitor, uint64_t first) const;

  const Snapshot& snapshot_;
  const Space space_;
  std::vector<PageEntry> entries_, stored_;
  std::vector<std::byte> piece_, buffer_;
};

}  // namespace snapshot
