// How a machine is snapshotted: the options that `run` and `restore` share. Plain data.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "cli/syntax.h"
#include "snapshot/capture.h"

namespace CLI {
class App;
}

namespace cli {

struct SnapshotOptions {
  std::string store;                  // empty: said with the first `minivmm snapshot`
  std::chrono::nanoseconds every{0};  // 0: only when asked
  uint32_t keep = 0;                  // 0: all
  bool on_term = false;               // SIGTERM takes a snapshot and ends the machine
  std::chrono::nanoseconds max_pause{300'000};
  snapshot::Capture::OnHot on_hot = snapshot::Capture::OnHot::kThrottle;
  uint64_t staging_bytes = 0;  // 0: the default
};

// `options` outlives `syntax`. The store of a restored machine is that of its snapshot.
void add_store_option(Syntax& syntax, SnapshotOptions& options);
void add_snapshot_options(Syntax& syntax, SnapshotOptions& options);
struct PauseOptions {
  const Option& max_pause;
  const Option& on_hot;
};
PauseOptions add_pause_options(Syntax& syntax, std::chrono::nanoseconds& max_pause,
                               snapshot::Capture::OnHot& on_hot);
base::Result<void> check_snapshot_options(const SnapshotOptions& options);

base::Result<snapshot::Capture::OnHot> parse_on_hot(std::string_view text);

}  // namespace cli
