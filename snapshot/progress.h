// What a long pass over a store tells whoever waits for it, and how it is told to stop. Called now
// and then, on the thread that does the pass or, one at a time, on its helpers'.
#pragma once

#include <cstdint>
#include <functional>

#include "vmm/base/result.h"

namespace snapshot {

// Bytes done and bytes in all; false: stop, leave nothing.
using Progress = std::function<bool(uint64_t done, uint64_t total)>;

inline base::Result<void> report(const Progress& progress, uint64_t done, uint64_t total) {
  if (progress && !progress(done, total)) return base::fail("interrupted; nothing was left behind");
  return {};
}

}  // namespace snapshot
