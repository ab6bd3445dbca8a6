// minivmm verify: reads everything of a store, or of one snapshot, and names what is damaged.
#include <fmt/format.h>

#include <memory>

#include "cli/commands/command.h"
#include "cli/exit_status.h"
#include "cli/progress_bar.h"
#include "cli/size.h"
#include "cli/snapshot_name.h"
#include "cli/snapshot_text.h"
#include "cli/store_json.h"

namespace cli {
namespace {

using nlohmann::json;
using snapshot::Damage;
using snapshot::Id;
using snapshot::VerifyReport;

json report_json(const VerifyReport& report) {
  json damages = json::array();
  for (const Damage& damage : report.damages) {
    json ids = json::array();
    for (const Id& id : damage.snapshots) ids.push_back(id.text());
    damages.push_back({{"file", damage.file},
                       {"offset", damage.offset},
                       {"what", damage.what},
                       {"snapshots", ids}});
  }
  return {{"good", report.good()}, {"snapshots", report.snapshots},       {"pages", report.pages},
          {"bytes", report.bytes}, {"damage_count", report.damage_count}, {"damages", damages}};
}

void print_report(const VerifyReport& report) {
  for (const Damage& damage : report.damages) {
    std::string users;
    for (const Id& id : damage.snapshots) users += " " + short_id(id, damage.snapshots);
    fmt::print("DAMAGED {} at {}: {}{}{}\n", plain_text(damage.file, 200), damage.offset,
               plain_text(damage.what, 300), users.empty() ? "" : "; used by", users);
  }
  if (report.damage_count > report.damages.size())
    fmt::print("… and {} more\n", report.damage_count - report.damages.size());
  fmt::print("{} snapshots, {} pages, {}: {}\n", report.snapshots, report.pages,
             format_size(report.bytes),
             report.good() ? "all good" : fmt::format("{} damages", report.damage_count));
}

base::Result<int> verify(const std::string& text, bool as_json) {
  TRY_ASSIGN(SnapshotName name, parse_snapshot_name(text));
  TRY_ASSIGN(auto store, snapshot::Store::open(name.store));
  std::vector<Id> ids;
  if (!name.id_prefix.empty()) {
    TRY_ASSIGN(Id id, store->resolve(name.id_prefix));
    ids.push_back(id);
  }
  base::Result<VerifyReport> report = [&] {
    ProgressBar bar("verify");
    return store->verify(ids, bar.progress());
  }();
  TRY(report);
  if (as_json) {
    print_json(report_json(*report));
  } else {
    print_report(*report);
  }
  return report->good() ? kSuccess : kFailure;
}

}  // namespace

Command make_verify() {
  struct Options {
    std::string name;
    bool as_json = false;
  };
  auto options = std::make_shared<Options>();
  auto syntax = std::make_unique<Syntax>("verify", "read every byte of snapshots and check it");
  syntax->argument("SNAPSHOT", options->name, "STORE, or STORE@ID for one of its snapshots");
  syntax->flag("--json", options->as_json, "for programs");
  syntax->footer(R"(Exit status 1 where something is damaged; each damage is a line.
Examples:
  minivmm verify job1.store
  minivmm verify job1.store@a91f || echo "restore another one")");
  return {std::move(syntax), [options] { return verify(options->name, options->as_json); }};
}

}  // namespace cli
