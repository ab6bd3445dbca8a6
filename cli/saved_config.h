// A machine's configuration as its snapshots keep it: what a restore needs to make the same
// devices. It names nothing of the host (no path, no tap, no port): those come from the command
// line.
//
// What is read may come from anywhere: bounds are checked, and the error says what is wrong.
#pragma once

#include <string>
#include <string_view>

#include "cli/run_options.h"
#include "vmm/base/result.h"

namespace cli {

inline constexpr size_t kMostSavedConfig = 64 << 10;  // bytes

std::string saved_config(const RunOptions& options);
// Disks have no path and no tap has a name in what comes back; `kernel` is empty.
base::Result<RunOptions> parse_saved_config(std::string_view text);

}  // namespace cli
