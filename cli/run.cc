#include "cli/run.h"

namespace cli {

base::Result<int> run_machine(const RunOptions&) {
  return base::fail("this build has no machine yet");
}

}  // namespace cli
