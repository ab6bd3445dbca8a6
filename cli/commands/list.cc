// minivmm list: the snapshots of a store, and the machines that continue them.
#include <fmt/format.h>

#include <chrono>
#include <memory>

#include "cli/commands/command.h"
#include "cli/exit_status.h"
#include "cli/size.h"
#include "cli/snapshot_text.h"
#include "cli/store_json.h"

namespace cli {
namespace {

using nlohmann::json;
using snapshot::HeadInfo;
using snapshot::Id;
using snapshot::SnapshotInfo;

struct Listing {
  std::vector<SnapshotInfo> snapshots;  // oldest first
  std::vector<HeadInfo> heads;
};

bool is_good(const Listing& listing) {
  auto good = [](const SnapshotInfo& row) { return row.damage.empty(); };
  auto sound = [](const HeadInfo& head) { return head.damage.empty(); };
  return std::ranges::all_of(listing.snapshots, good) && std::ranges::all_of(listing.heads, sound);
}

json head_json(const HeadInfo& head) {
  json row = {{"branch", head.branch.text()}, {"running", head.alive}};
  if (!head.damage.empty()) {
    row["damage"] = head.damage;
    return row;
  }
  row["vm_name"] = head.vm_name;
  row["layers"] = head.head ? head.head->layers.size() : 0;
  row["parent"] = head.head && head.head->parent ? json(head.head->parent->text()) : json();
  return row;
}

void print_listing_json(const Listing& listing) {
  json snapshots = json::array(), heads = json::array();
  for (const SnapshotInfo& info : listing.snapshots) snapshots.push_back(snapshot_info_json(info));
  for (const HeadInfo& head : listing.heads) heads.push_back(head_json(head));
  print_json({{"snapshots", snapshots}, {"branches", heads}});
}

int64_t age_ns(uint64_t time_ns) {
  auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(now).count() -
         static_cast<int64_t>(time_ns);
}

void print_snapshots(const Listing& listing) {
  std::vector<Id> ids, branches;
  for (const SnapshotInfo& info : listing.snapshots) {
    ids.push_back(info.id);
    branches.push_back(info.branch);
  }
  // A parent that was pruned is not in the list.
  auto parent_of = [&](const SnapshotInfo& info) {
    return info.parent ? short_id(*info.parent, ids) : std::string("-");
  };
  fmt::print("{:<10} {:<10} {:<10} {:<19} {:>7} {:<12} {:>9} {:>9} {:>10} {:>8}  {}\n", "ID",
             "PARENT", "BRANCH", "TIME", "AGE", "KIND", "PAGES", "DISK", "SIZE", "PAUSE", "VM");
  for (const SnapshotInfo& info : listing.snapshots) {
    if (!info.damage.empty()) {
      fmt::print("{:<10} DAMAGED: {}\n", short_id(info.id, ids), plain_text(info.damage, 300));
      continue;
    }
    fmt::print("{:<10} {:<10} {:<10} {:<19} {:>7} {:<12} {:>9} {:>9} {:>10} {:>8}  {}\n",
               short_id(info.id, ids), parent_of(info), short_id(info.branch, branches),
               format_time(static_cast<int64_t>(info.time_ns)), format_age(age_ns(info.time_ns)),
               kind_name(info.kind), info.ram_pages, info.disk_pages, format_size(info.bytes),
               format_duration(info.pause_ns), plain_text(info.vm_name));
  }
}

// Branches that end in no snapshot: machines that run, and disks written since the last one.
void print_heads(const Listing& listing) {
  std::vector<Id> ids, branches;
  for (const SnapshotInfo& info : listing.snapshots) ids.push_back(info.id);
  for (const SnapshotInfo& info : listing.snapshots) branches.push_back(info.branch);
  for (const HeadInfo& head : listing.heads) branches.push_back(head.branch);
  for (const HeadInfo& head : listing.heads) {
    std::string branch = short_id(head.branch, branches);
    if (!head.damage.empty()) {
      fmt::print("branch {}: DAMAGED: {}\n", branch, plain_text(head.damage, 300));
      continue;
    }
    if (!head.head) {
      if (head.alive) fmt::print("branch {}: {} runs\n", branch, plain_text(head.vm_name));
      continue;
    }
    std::string from = head.head->parent ? "continues " + short_id(*head.head->parent, ids)
                                         : std::string("has no snapshot yet");
    fmt::print("branch {}: {} {}, {}, {} disk layer{} since\n", branch, plain_text(head.vm_name),
               head.alive ? "runs" : "ended", from, head.head->layers.size(),
               head.head->layers.size() == 1 ? "" : "s");
  }
}

base::Result<int> list(const std::string& path, bool as_json) {
  TRY_ASSIGN(auto store, snapshot::Store::open(path));
  Listing listing;
  TRY_ASSIGN(listing.snapshots, store->list());
  TRY_ASSIGN(listing.heads, store->heads());
  if (as_json) {
    print_listing_json(listing);
  } else {
    print_snapshots(listing);
    print_heads(listing);
  }
  return is_good(listing) ? kSuccess : kFailure;
}

}  // namespace

Command make_list() {
  struct Options {
    std::string store;
    bool as_json = false;
  };
  auto options = std::make_shared<Options>();
  auto syntax = std::make_unique<Syntax>("list", "the snapshots of a store, oldest first");
  syntax->argument("STORE", options->store, "the store's directory");
  syntax->flag("--json", options->as_json, "for programs");
  syntax->footer(
      R"(PAGES and DISK are the pages of memory and the 4 KiB blocks of disks that the snapshot itself
holds; all others are in those before it. Exit status 1 where one is damaged.
Examples:
  minivmm list job1.store
  minivmm list job1.store --json | jq -r '.snapshots[-1].id')");
  return {std::move(syntax), [options] { return list(options->store, options->as_json); }};
}

}  // namespace cli
