// Which pages of a mapping have memory behind them: /proc/self/pagemap
// (Documentation/admin-guide/mm/pagemap.rst). Asking does not bring a page in.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "vmm/base/result.h"

namespace snapshot {

// Sets bit i of `bits` where page i of [start, start + bytes) is in memory or in swap; other bits
// stay. `start` is page-aligned.
base::Result<void> find_resident(const std::byte* start, uint64_t bytes, std::span<uint64_t> bits);

}  // namespace snapshot
