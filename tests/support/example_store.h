// The store of the worked example in snapshot/FORMAT.md: two snapshots of a machine with four pages
// of memory in two regions and one disk, and what it left when it was killed after the second one.
// Every byte is the same each time.
#pragma once

#include <memory>

#include "snapshot/store/store.h"
#include "tests/support/model_storage.h"

namespace test {

// On an empty file system. Exceptions say what went wrong.
void make_example_store(ModelFileSystem& files);

// 1, 2, 3, …: as text a0a1a2a3a4a5a601b0b1b2b3b4b5b601, a0a1a2a3a4a5a602b0b1b2b3b4b5b602, …
snapshot::Id example_id(uint64_t number);

}  // namespace test
