// A Storage whose queues hand each write over late, by a time that a seed chooses: what the memory
// of a write contains is looked at as late as a busy disk would, so that writes overlap with what
// their owner does next. Everything else goes straight to the storage beneath.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>

#include "snapshot/storage.h"

namespace test {

struct Delays {
  std::chrono::microseconds longest{2000};
  uint64_t seed = 1;  // say it where a test fails
};

std::unique_ptr<snapshot::Storage> delay_writes(std::unique_ptr<snapshot::Storage> beneath,
                                                Delays delays);

}  // namespace test
