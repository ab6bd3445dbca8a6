// What a store that is wrong about its order would have recorded: the proof that the crash tests
// look. Each mutation leaves out one sync of a recording, or exchanges two things whose order
// matters.
#pragma once

#include <string>
#include <vector>

#include "tests/support/recording.h"

namespace test {

struct Mutation {
  std::string name;  // "[what came last] what is wrong: call of file", "*" for ids
  Recording recording;
  size_t from = 0;  // nothing is different before this event
};

// Every sync left out; every sync only after the rename or the acknowledgement it comes before;
// every rename before the syncs since the last one; every sync before the last write it covers.
std::vector<Mutation> mutations(const Recording& recording);

}  // namespace test
