// minivmm prune: removes snapshots, and frees what only they used.
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <optional>

#include "cli/commands/command.h"
#include "cli/exit_status.h"
#include "cli/open_snapshot.h"
#include "cli/size.h"
#include "cli/snapshot_name.h"
#include "cli/snapshot_text.h"
#include "cli/store_json.h"
#include "cli/syntax.h"

namespace cli {
namespace {

using nlohmann::json;
using snapshot::Id;
using snapshot::PruneReport;

struct Options {
  std::string store;
  std::optional<uint64_t> keep;
  std::vector<std::string> remove;  // beginnings of ids
  std::vector<std::string> heads;   // of branches
  bool dry_run = false;
  bool as_json = false;
};

base::Result<uint64_t> parse_keep(std::string_view text) {
  return parse_number(text, 1, 1'000'000'000);
}

base::Result<std::vector<Id>> find_heads(snapshot::Store& store, const Options& options) {
  std::vector<Id> found;
  for (const std::string& prefix : options.heads) {
    TRY_ASSIGN(snapshot::HeadInfo head, find_head(store, prefix));
    if (head.alive) {
      return base::fail(fmt::format("the machine of branch {} runs: stop it first, minivmm stop {}",
                                    head.branch.text(), plain_text(head.vm_name)));
    }
    if (std::ranges::find(found, head.branch) == found.end()) found.push_back(head.branch);
  }
  return found;
}

void print_report(const PruneReport& report, const std::vector<Id>& forgotten, bool dry_run) {
  for (const Id& branch : forgotten)
    fmt::print("{} branch {}\n", dry_run ? "would forget" : "forgot", branch.text());
  std::vector<Id> all = report.removed;
  all.insert(all.end(), report.in_use.begin(), report.in_use.end());
  for (const Id& id : report.removed)
    fmt::print("{} {}\n", dry_run ? "would remove" : "removed", short_id(id, all));
  for (const Id& id : report.in_use)
    fmt::print("kept {}: a machine continues it, or somebody reads it\n", short_id(id, all));
  if (dry_run) {
    fmt::print("{} snapshots, {} at most would be freed\n", report.removed.size(),
               format_size(report.freed_bytes));
  } else {
    fmt::print("{} snapshots removed, {} freed\n", report.removed.size(),
               format_size(report.freed_bytes));
  }
}

base::Result<int> prune(const Options& options) {
  if (!options.keep && options.remove.empty() && options.heads.empty())
    return base::fail("nothing to prune: say --keep N, --delete ID or --head BRANCH");
  TRY_ASSIGN(auto store, snapshot::Store::open(options.store));
  snapshot::PruneOptions wanted;
  wanted.keep = options.keep;
  wanted.dry_run = options.dry_run;
  for (const std::string& prefix : options.remove) {
    TRY_ASSIGN(Id id, store->resolve(prefix));
    wanted.remove.push_back(id);
  }
  TRY_ASSIGN(std::vector<Id> forgotten, find_heads(*store, options));
  wanted.forgotten = forgotten;
  uint64_t freed = 0;
  // First of all, and what only they continue can go then; nothing goes before all is understood.
  for (const Id& branch : options.dry_run ? std::vector<Id>{} : forgotten) {
    TRY_ASSIGN(auto garbage, store->remove_head(branch));
    freed += garbage.bytes;
  }
  TRY_ASSIGN(PruneReport report, store->prune(wanted));
  report.freed_bytes += freed;
  if (options.as_json) {
    print_json({{"dry_run", options.dry_run},
                {"forgotten", ids_json(forgotten)},
                {"removed", ids_json(report.removed)},
                {"in_use", ids_json(report.in_use)},
                {"freed_bytes", report.freed_bytes}});
  } else {
    print_report(report, forgotten, options.dry_run);
  }
  // Who names a snapshot wants it gone.
  bool refused = !options.remove.empty() && !report.in_use.empty();
  return refused ? kFailure : kSuccess;
}

}  // namespace

Command make_prune() {
  auto options = std::make_shared<Options>();
  auto syntax = std::make_unique<Syntax>("prune", "remove snapshots, and free what only they used");
  syntax->argument("STORE", options->store, "the store's directory");
  syntax->option("--keep", options->keep, parse_keep,
                 "keep the newest N of each branch, remove the others", "N");
  syntax->list("--delete", options->remove, parse_id_prefix,
               "remove this one; may be given several times", "ID");
  syntax->list("--head", options->heads, parse_id_prefix,
               "forget what a machine that ended wrote to its disks after its last snapshot "
               "(see list; export --head keeps it); may be given several times",
               "BRANCH");
  syntax->flag("--dry-run", options->dry_run, "say what would go, remove nothing");
  syntax->flag("--json", options->as_json, "for programs");
  syntax->footer(
      R"(Every snapshot stands for itself: those that stay restore as before. A snapshot that a machine
continues, running or to be restored, stays; so does one that is being restored. Machines may run
meanwhile.
Examples:
  minivmm prune job1.store --keep 10
  minivmm prune job1.store --delete a91f --delete 77c0 --dry-run
  minivmm prune job1.store --head 3fc0)");
  return {std::move(syntax), [options] { return prune(*options); }};
}

}  // namespace cli
