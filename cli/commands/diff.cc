// minivmm diff: what differs between two snapshots of a store.
#include "snapshot/diff.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>

#include "cli/commands/command.h"
#include "cli/exit_status.h"
#include "cli/open_snapshot.h"
#include "cli/progress_bar.h"
#include "cli/size.h"
#include "cli/snapshot_name.h"
#include "cli/store_json.h"
#include "cli/syntax.h"
#include "snapshot/ram_regions.h"

namespace cli {
namespace {

using nlohmann::json;
using snapshot::kPageBytes;
using snapshot::kRamSpace;
using snapshot::PageRange;
using snapshot::RamRegion;
using snapshot::SpaceDifference;

// A range as addresses: guest-physical for RAM, where it may reach over a hole and is then two.
std::vector<PageRange> addresses(const SpaceDifference& difference,
                                 const std::vector<RamRegion>& regions) {
  std::vector<PageRange> found;
  for (PageRange range : difference.ranges) {
    if (difference.space != kRamSpace) {
      found.push_back({range.first * kPageBytes, range.count * kPageBytes});
      continue;
    }
    for (const RamRegion& region : regions) {
      uint64_t first = std::max(range.first, region.first_page);
      uint64_t end = std::min(range.first + range.count, region.first_page + region.pages);
      if (first >= end) continue;
      found.push_back({region.start.value + (first - region.first_page) * kPageBytes,
                       (end - first) * kPageBytes});
    }
  }
  return found;
}

std::string space_name(snapshot::Space space) {
  return space == kRamSpace ? "RAM" : fmt::format("disk {}", space - 1);
}

json difference_json(const SpaceDifference& difference, const std::vector<RamRegion>& regions) {
  json ranges = json::array();
  for (const PageRange& range : addresses(difference, regions))
    ranges.push_back({{"start", range.first}, {"bytes", range.count}});
  return {{"space", space_name(difference.space)}, {"pages_before", difference.pages_before},
          {"pages_after", difference.pages_after}, {"differing", difference.differing()},
          {"changed", difference.changed},         {"appeared", difference.appeared},
          {"vanished", difference.vanished},       {"ranges", ranges}};
}

void print_difference(const SpaceDifference& difference, const std::vector<RamRegion>& regions) {
  constexpr size_t kShown = 20;
  uint64_t pages = std::max(difference.pages_before, difference.pages_after);
  fmt::print("{}: {} of {} pages differ ({}): {} changed, {} were zero, {} became zero\n",
             space_name(difference.space), difference.differing(), pages,
             format_size(difference.differing() * kPageBytes), difference.changed,
             difference.appeared, difference.vanished);
  if (difference.pages_before != difference.pages_after) {
    fmt::print("  {} pages before, {} after\n", difference.pages_before, difference.pages_after);
  }
  std::vector<PageRange> ranges = addresses(difference, regions);
  for (size_t i = 0; i < std::min(kShown, ranges.size()); ++i)
    fmt::print("  {:#014x}  {}\n", ranges[i].first, format_size(ranges[i].count));
  if (ranges.size() > kShown)
    fmt::print("  and {} more ranges (--json has all)\n", ranges.size() - kShown);
}

base::Result<int> diff_snapshots(const std::string& name, const std::string& other, bool as_json) {
  TRY_ASSIGN(OpenSnapshot before, open_snapshot(name));
  TRY_ASSIGN(auto id, before.store->resolve(other));
  TRY_ASSIGN(auto after, before.store->load(id));
  TRY_ASSIGN(auto hold, after->hold());
  // Of the larger one: a machine restored with other memory is another machine, but may be asked.
  bool first_is_larger = before.snapshot->pages(kRamSpace) >= after->pages(kRamSpace);
  TRY_ASSIGN(auto regions, snapshot::ram_regions(first_is_larger ? before.snapshot->manifest()
                                                                 : after->manifest()));
  auto differences = [&] {
    ProgressBar bar("diff");
    return snapshot::diff(*before.snapshot, *after, bar.progress());
  }();
  TRY(differences);
  if (as_json) {
    json spaces = json::array();
    for (const auto& difference : *differences)
      spaces.push_back(difference_json(difference, regions));
    print_json({{"before", before.snapshot->id().text()},
                {"after", after->id().text()},
                {"spaces", spaces}});
    return kSuccess;
  }
  for (const auto& difference : *differences) print_difference(difference, regions);
  return kSuccess;
}

}  // namespace

Command make_diff() {
  struct Options {
    std::string name, other;
    bool as_json = false;
  };
  auto options = std::make_shared<Options>();
  auto syntax =
      std::make_unique<Syntax>("diff", "pages and disk blocks that two snapshots differ in");
  syntax->argument("SNAPSHOT", options->name, "STORE@ID, the one before");
  syntax->argument("ID", options->other, parse_id_prefix, "the one after, of the same store");
  syntax->flag("--json", options->as_json, "for programs");
  syntax->footer(
      R"(Addresses are guest-physical for RAM, bytes of the disk for disks. A block that one snapshot holds
itself and the other has in the base image counts as different.
Examples:
  minivmm diff job1.store@a91f 77c0
  minivmm diff job1.store@a91f 77c0 --json | jq '.spaces[0].differing')");
  return {std::move(syntax),
          [options] { return diff_snapshots(options->name, options->other, options->as_json); }};
}

}  // namespace cli
