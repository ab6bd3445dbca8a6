// What a store owes after each step of a script (script.h), and the check that a disk after a crash
// gives it.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "snapshot/types.h"
#include "tests/crash/guest.h"
#include "tests/support/disk_image.h"

namespace test {

struct Promises {
  bool store = false;                    // there is one
  std::map<snapshot::Id, Content> must;  // committed: there, and exactly this
  std::map<snapshot::Id, Content> may;   // being pruned: gone, or exactly this
  std::vector<Content> may_appear;       // commits begun: any snapshot else is one of these
  // Of each branch with a disk the numbers that may be in each block: one where a flush after the
  // last write was acknowledged.
  std::map<snapshot::Id, std::vector<std::set<uint64_t>>> disks;
};

// Opens the store as the next process would: everything it shows is right and complete, everything
// promised is there, the next snapshot works, and nothing that no snapshot needs is left. "" or
// what is wrong.
std::string broken_promise(const DiskImage& image, const Promises& promises);

}  // namespace test
