// minivmm commit: folds a disk of a snapshot into its base image.
#include <fmt/format.h>

#include <algorithm>
#include <memory>

#include "cli/commands/command.h"
#include "cli/exit_status.h"
#include "cli/open_snapshot.h"
#include "cli/progress_bar.h"
#include "cli/size.h"
#include "cli/snapshot_text.h"
#include "cli/store_json.h"
#include "cli/syntax.h"
#include "snapshot/base_image.h"
#include "snapshot/disk/layer_log.h"
#include "snapshot/fold_disk.h"

namespace cli {
namespace {

using nlohmann::json;
using snapshot::Id;

struct CommitOptions {
  std::string name, base;
  uint64_t disk = 0;
  bool force = false;
  bool as_json = false;
};

base::Result<uint64_t> parse_disk_number(std::string_view text) {
  return parse_number(text, 0, snapshot::kMaxDisks - 1);
}

// The other snapshots of the store that have blocks in this image: it is not theirs any more when
// it has changed. One that cannot be read may be one of them.
base::Result<std::vector<Id>> dependents(const OpenSnapshot& open, const std::string& identity) {
  std::vector<Id> found;
  TRY_ASSIGN(auto infos, open.store->list());
  for (const auto& info : infos) {
    if (info.id == open.snapshot->id()) continue;
    auto other = open.store->load(info.id);
    bool uses = !other || std::ranges::any_of((*other)->manifest().disks, [&](const auto& disk) {
      return disk.base == identity;
    });
    if (uses) found.push_back(info.id);
  }
  return found;
}

// Was anything flushed into this layer, as far as it can be told?
bool has_content(snapshot::Storage& storage, const snapshot::Head::Layer& layer) {
  auto log = storage.open(snapshot::layer_log_name(layer.disk, layer.id),
                          snapshot::Storage::Access::kRead, snapshot::Storage::Caching::kCached);
  return !log || (*log)->size().value_or(UINT64_MAX) > snapshot::kLayerLogHeaderBytes;
}

// The branches whose machines have written to a disk on this image since their last snapshot: that
// stands on the image as well. Of one without a snapshot, or with one that cannot be read, nobody
// knows the image.
base::Result<std::vector<Id>> dependent_heads(const OpenSnapshot& open,
                                              const std::string& identity) {
  std::vector<Id> found;
  TRY_ASSIGN(auto heads, open.store->heads());
  for (const snapshot::HeadInfo& head : heads) {
    bool uses = !head.damage.empty();
    if (head.head) {
      std::shared_ptr<const snapshot::Snapshot> parent;
      if (head.head->parent) parent = open.store->load(*head.head->parent).value_or(nullptr);
      uses = std::ranges::any_of(head.head->layers, [&](const snapshot::Head::Layer& layer) {
        if (!has_content(open.store->storage(), layer)) return false;
        if (!parent) return true;
        const auto& disks = parent->manifest().disks;
        return layer.disk < disks.size() && disks[layer.disk].base == identity;
      });
    }
    if (uses) found.push_back(head.branch);
  }
  return found;
}

std::string names_of(const std::vector<Id>& ids) {
  std::string names;
  for (const Id& id : ids) names += " " + short_id(id, ids);
  return names;
}

base::Result<int> commit(const CommitOptions& options) {
  TRY_ASSIGN(OpenSnapshot open, open_snapshot(options.name));
  auto number = static_cast<uint32_t>(options.disk);
  TRY_ASSIGN(const snapshot::Disk* disk, snapshot::find_disk(open.snapshot->manifest(), number));
  TRY_ASSIGN(std::vector<Id> others, dependents(open, disk->base));
  if (!others.empty() && !options.force) {
    return base::fail(fmt::format(
        "{} has blocks of other snapshots, which could not be restored any more:{}; prune them, or "
        "say --force",
        options.base, names_of(others)));
  }
  TRY_ASSIGN(std::vector<Id> heads, dependent_heads(open, disk->base));
  if (!heads.empty() && !options.force) {
    return base::fail(fmt::format(
        "machines have written to disks on {} after their last snapshots, and that would be lost; "
        "branches:{}; keep it (minivmm export --head), forget it (minivmm prune --head), or say "
        "--force",
        options.base, names_of(heads)));
  }
  auto report = [&] {
    ProgressBar bar("commit");
    return snapshot::fold_disk(*open.snapshot, open.store->format().uuid, number, options.base,
                               bar.progress());
  }();
  TRY(report);
  if (options.as_json) {
    print_json({{"id", open.snapshot->id().text()},
                {"disk", number},
                {"written_blocks", report->written},
                {"zeroed_blocks", report->zeroed},
                {"resumed", report->resumed},
                {"not_restorable", ids_json(others)},
                {"lost_branches", ids_json(heads)}});
    return kSuccess;
  }
  fmt::print("{} is disk {} as it was at {}: {} written, {} zeroed\n", options.base, number,
             open.snapshot->id().text(), format_size(report->written * snapshot::kPageBytes),
             format_size(report->zeroed * snapshot::kPageBytes));
  return kSuccess;
}

}  // namespace

Command make_commit() {
  auto options = std::make_shared<CommitOptions>();
  auto syntax =
      std::make_unique<Syntax>("commit", "fold a disk of a snapshot into its base image, in place");
  syntax->argument("SNAPSHOT", options->name, "STORE for the newest, or STORE@ID");
  syntax->option("--disk", options->disk, parse_disk_number, "which disk; 0 is /dev/vda", "N")
      .required();
  syntax->text("--base", options->base, "the image that the disk was started with", "FILE")
      .required();
  syntax->flag("--force", options->force,
               "even where other snapshots, or what machines wrote after their last ones, need the "
               "image as it was; they are lost");
  syntax->flag("--json", options->as_json, "for programs");
  syntax->footer(
      R"(The image is then the disk at the snapshot: start a new machine from it. Snapshots recorded with the
image as it was, this one too, are refused by restore from then on. Where it is interrupted, the same
command again completes it.
Example:
  minivmm commit job1.store@a91f --disk 0 --base root.img)");
  return {std::move(syntax), [options] { return commit(*options); }};
}

}  // namespace cli
