#include "cli/snapshot_options.h"

#include <fmt/format.h>

#include "cli/duration.h"
#include "cli/size.h"
#include "cli/syntax.h"
#include "snapshot/staging.h"

namespace cli {
namespace {

constexpr uint64_t kMostKept = 1'000'000;
constexpr std::chrono::nanoseconds kLeastInterval = std::chrono::milliseconds(10);

base::Result<std::string> parse_store(std::string_view text) {
  if (text.empty()) return base::fail("no directory given");
  return std::string(text);
}

base::Result<uint32_t> parse_keep(std::string_view text) {
  TRY_ASSIGN(uint64_t count, parse_number(text, 1, kMostKept));
  return static_cast<uint32_t>(count);
}

base::Result<std::chrono::nanoseconds> parse_interval(std::string_view text) {
  TRY_ASSIGN(std::chrono::nanoseconds interval, parse_duration(text));
  if (interval < kLeastInterval) return base::fail(fmt::format("'{}' is less than 10ms", text));
  return interval;
}

// No less than the pool really takes: what is asked for is never exceeded.
base::Result<uint64_t> parse_staging(std::string_view text) {
  TRY_ASSIGN(uint64_t bytes, parse_size(text));
  constexpr uint64_t kLeast = snapshot::Staging::kSmallestPool * snapshot::kPageBytes;
  if (bytes >= kLeast) return bytes;
  return base::fail(
      fmt::format("'{}' is too little: a snapshot takes at least {}", text, format_size(kLeast)));
}

}  // namespace

base::Result<snapshot::Capture::OnHot> parse_on_hot(std::string_view text) {
  if (text == "throttle") return snapshot::Capture::OnHot::kThrottle;
  if (text == "stop") return snapshot::Capture::OnHot::kStop;
  return base::fail(fmt::format("'{}' is neither throttle nor stop", text));
}

PauseOptions add_pause_options(Syntax& syntax, std::chrono::nanoseconds& max_pause,
                               snapshot::Capture::OnHot& on_hot) {
  const Option& pause =
      syntax.option("--max-pause", max_pause, parse_duration,
                    "how long the guest may be stopped for a snapshot, default 300us", "TIME");
  const Option& hot = syntax.option(
      "--on-hot", on_hot, parse_on_hot,
      "a guest that writes faster than is copied: throttle it (default; where that does not "
      "help for 10 s, stop it) or stop it",
      "{throttle,stop}");
  return {pause, hot};
}

void add_store_option(Syntax& syntax, SnapshotOptions& options) {
  syntax.option("--store", options.store, parse_store,
                "directory of the snapshots, made where it is missing", "DIR");
}

void add_snapshot_options(Syntax& syntax, SnapshotOptions& options) {
  syntax.option("--snapshot-every", options.every, parse_interval, "take a snapshot every so often",
                "TIME");
  syntax.option(
      "--keep", options.keep, parse_keep,
      "prune all but the last N snapshots of this run; those of runs before stay (minivmm prune)",
      "N");
  syntax.flag("--snapshot-on-term", options.on_term,
              "SIGTERM takes a snapshot and ends the machine (status 197)");
  add_pause_options(syntax, options.max_pause, options.on_hot);
  syntax.option(
      "--staging", options.staging_bytes, parse_staging,
      "memory that copies of pages may take while a snapshot is made, 4M or more; default a "
      "quarter of the guest's, at most 64M, with --on-hot=stop 2G",
      "SIZE");
}

base::Result<void> check_snapshot_options(const SnapshotOptions& options) {
  if (!options.store.empty()) return {};
  const char* needs = options.every.count() != 0 ? "--snapshot-every"
                      : options.keep != 0        ? "--keep"
                      : options.on_term          ? "--snapshot-on-term"
                                                 : nullptr;
  if (needs == nullptr) return {};
  return base::fail(fmt::format("{} needs a store: say where, as in --store DIR", needs));
}

}  // namespace cli
