// Builds the machine that `minivmm run` asked for, runs it to its end and takes it down.
#pragma once

#include "cli/run_options.h"
#include "vmm/base/result.h"

namespace cli {

// The exit status of the process (exit_status.h). An error means that no guest has run: it is bad
// input, the host lacks something. A failure while the guest runs is logged and is a status.
// Called on the main thread, before any other thread exists.
base::Result<int> run_machine(const RunOptions& options);

}  // namespace cli
