// minivmm inspect: explains a snapshot.
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <optional>

#include "cli/commands/command.h"
#include "cli/exit_status.h"
#include "cli/open_snapshot.h"
#include "cli/progress_bar.h"
#include "cli/size.h"
#include "cli/snapshot_text.h"
#include "cli/store_json.h"
#include "snapshot/page_counts.h"

namespace cli {
namespace {

using nlohmann::json;
using snapshot::Disk;
using snapshot::Id;
using snapshot::Manifest;
using snapshot::PageCounts;
using snapshot::SectionInfo;

struct Findings {
  const Manifest& manifest;
  PageCounts ram;
  std::vector<PageCounts> disks;
  std::vector<Id> chain;     // ancestors, nearest first
  bool ends_pruned = false;  // the next one was removed
  json config;
};

// Stops at an ancestor that was pruned, or at a circle, which only a forged store has.
void find_chain(const snapshot::Store& store, Findings& found) {
  auto infos = store.list();
  if (!infos) return;
  std::optional<Id> next = found.manifest.parent;
  while (next && found.chain.size() < infos->size()) {
    auto info = std::ranges::find(*infos, *next, &snapshot::SnapshotInfo::id);
    if (info == infos->end()) {
      found.ends_pruned = true;
      return;
    }
    found.chain.push_back(*next);
    next = info->damage.empty() ? info->parent : std::nullopt;
  }
}

json counts_json(const PageCounts& counts) {
  json files = json::object();
  for (const auto& [name, pages] : counts.files) files[name] = pages;
  return {{"pages", counts.all()},
          {"data", counts.data},
          {"zero", counts.zero},
          {"base", counts.base},
          {"files", files}};
}

json disks_json(const Findings& found) {
  json disks = json::array();
  for (size_t i = 0; i < found.disks.size(); ++i) {
    const Disk& disk = found.manifest.disks[i];
    json row = counts_json(found.disks[i]);
    row["name"] = disk.name;
    row["bytes"] = disk.size;
    row["read_only"] = disk.read_only;
    row["has_base"] = !disk.base.empty();
    disks.push_back(row);
  }
  return disks;
}

json findings_json(const Findings& found) {
  const Manifest& manifest = found.manifest;
  json chain = json::array(), memory = json::array(), sections = json::array();
  for (const Id& id : found.chain) chain.push_back(id.text());
  for (const auto& region : manifest.memory)
    memory.push_back({{"gpa", region.gpa}, {"bytes", region.size}});
  for (const SectionInfo& section : manifest.sections) {
    sections.push_back(
        {{"tag", section.tag}, {"version", section.version}, {"bytes", section.bytes}});
  }
  return {{"id", manifest.id.text()},
          {"parent", manifest.parent ? json(manifest.parent->text()) : json()},
          {"branch", manifest.branch.text()},
          {"chain", chain},
          {"vm_name", manifest.vm_name},
          {"kind", kind_name(manifest.kind)},
          {"time_ns", manifest.time_ns},
          {"pause_ns", manifest.pause_ns},
          {"own",
           {{"ram_pages", manifest.ram_pages},
            {"disk_pages", manifest.disk_pages},
            {"zero_pages", manifest.zero_pages},
            {"stored_bytes", manifest.stored_bytes}}},
          {"memory", memory},
          {"ram", counts_json(found.ram)},
          {"disks", disks_json(found)},
          {"sections", sections},
          {"config", found.config}};
}

void print_counts(const PageCounts& counts, uint64_t own) {
  fmt::print("  {} pages: {} with data ({}), {} zero", counts.all(), counts.data,
             format_size(counts.data * snapshot::kPageBytes), counts.zero);
  if (counts.base > 0) fmt::print(", {} in the base image", counts.base);
  if (own > 0 && own <= counts.data) fmt::print("; {} inherited", counts.data - own);
  fmt::print("\n");
  for (const auto& [name, pages] : counts.files)
    fmt::print("    {:>10} in {}\n", pages, plain_text(name, 100));
}

void print_memory(const Findings& found) {
  uint64_t bytes = 0;
  for (const auto& region : found.manifest.memory) bytes += region.size;
  fmt::print("\nMemory: {}\n", format_size(bytes));
  for (const auto& region : found.manifest.memory)
    fmt::print("  {:#014x}  {}\n", region.gpa, format_size(region.size));
  print_counts(found.ram, found.manifest.ram_pages);
}

void print_disks(const Findings& found) {
  for (size_t i = 0; i < found.disks.size(); ++i) {
    const Disk& disk = found.manifest.disks[i];
    fmt::print("\nDisk {} ({}): {}{}{}\n", i, plain_text(disk.name), format_size(disk.size),
               disk.read_only ? ", read-only" : "",
               disk.base.empty() ? "" : ", over a base image that is not in the store");
    print_counts(found.disks[i], 0);
  }
}

// What the machine was started with: one line for each part of its configuration.
void print_config(const json& config) {
  if (!config.is_object()) return;
  fmt::print("\nConfiguration\n");
  for (const auto& [key, value] : config.items()) {
    fmt::print("  {:<20} {}\n", plain_text(key),
               plain_text(value.dump(-1, ' ', false, json::error_handler_t::replace), 200));
  }
}

void print_findings(const Findings& found) {
  const Manifest& manifest = found.manifest;
  fmt::print("Snapshot {} of {}\n", manifest.id.text(), plain_text(manifest.vm_name));
  fmt::print("  {}, taken {}, the guest stood for {}\n", kind_name(manifest.kind),
             format_time(static_cast<int64_t>(manifest.time_ns)),
             format_duration(manifest.pause_ns));
  fmt::print("  wrote {}: {} pages of memory, {} of disks, {} became zero\n",
             format_size(manifest.stored_bytes), manifest.ram_pages, manifest.disk_pages,
             manifest.zero_pages);
  fmt::print("  branch {}\n", manifest.branch.text());
  std::string chain;
  for (const Id& id : found.chain) chain += " <- " + short_id(id, found.chain);
  if (found.ends_pruned) chain += " <- (pruned)";
  fmt::print("  chain: {}{}\n", short_id(manifest.id, found.chain), plain_text(chain, 1000));

  auto is_vcpu = [](const SectionInfo& section) { return section.tag.starts_with("vcpu"); };
  fmt::print("\nMachine: {} vCPUs, {} disks\n", std::ranges::count_if(manifest.sections, is_vcpu),
             manifest.disks.size());
  for (const SectionInfo& section : manifest.sections) {
    fmt::print("  {:<24} version {:<3} {:>8} bytes\n", plain_text(section.tag), section.version,
               section.bytes);
  }
  print_memory(found);
  print_disks(found);
  print_config(found.config);
}

base::Result<Findings> look(const OpenSnapshot& open) {
  const Manifest& manifest = open.snapshot->manifest();
  Findings found{.manifest = manifest,
                 .ram = {},
                 .disks = {},
                 .chain = {},
                 .ends_pruned = false,
                 .config = parse_config(manifest.config)};
  ProgressBar bar("read the index");
  TRY_ASSIGN(found.ram, count_pages(*open.snapshot, snapshot::kRamSpace, bar.progress()));
  for (uint32_t disk = 0; disk < manifest.disks.size(); ++disk) {
    TRY_ASSIGN(PageCounts counts,
               count_pages(*open.snapshot, snapshot::disk_space(disk), bar.progress()));
    found.disks.push_back(std::move(counts));
  }
  find_chain(*open.store, found);
  return found;
}

base::Result<int> inspect(const std::string& name, bool as_json) {
  TRY_ASSIGN(OpenSnapshot open, open_snapshot(name));
  TRY_ASSIGN(Findings found, look(open));
  if (as_json) {
    print_json(findings_json(found));
  } else {
    print_findings(found);
  }
  return kSuccess;
}

}  // namespace

Command make_inspect() {
  struct Options {
    std::string name;
    bool as_json = false;
  };
  auto options = std::make_shared<Options>();
  auto syntax = std::make_unique<Syntax>("inspect", "explain a snapshot");
  syntax->argument("SNAPSHOT", options->name, "STORE for the newest, or STORE@ID");
  syntax->flag("--json", options->as_json, "for programs");
  syntax->footer(R"(Examples:
  minivmm inspect job1.store
  minivmm inspect job1.store@a91f --json | jq .ram.data)");
  return {std::move(syntax), [options] { return inspect(options->name, options->as_json); }};
}

}  // namespace cli
