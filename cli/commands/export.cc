// minivmm export: a snapshot's memory and disks as files that other tools read.
#include <fmt/format.h>

#include <algorithm>
#include <memory>

#include "cli/commands/command.h"
#include "cli/disk_argument.h"
#include "cli/exit_status.h"
#include "cli/open_snapshot.h"
#include "cli/progress_bar.h"
#include "cli/snapshot_name.h"
#include "cli/store_json.h"
#include "cli/syntax.h"
#include "snapshot/core_registers.h"
#include "snapshot/export_disk.h"
#include "snapshot/export_memory.h"
#include "vmm/base/path.h"

namespace cli {
namespace {

using nlohmann::json;

struct ExportOptions {
  std::string name;
  std::string memory, core;
  std::string head;  // the beginning of a branch's id; empty: a snapshot
  std::vector<DiskArgument> disks, bases;
  bool force = false;
  bool as_json = false;
};

base::Result<void> check(const ExportOptions& options) {
  if (options.memory.empty() && options.core.empty() && options.disks.empty())
    return base::fail("nothing to export: say --memory F, --core F or --disk N=F");
  std::vector<std::string> files;
  for (const std::string& file : {options.memory, options.core}) {
    if (!file.empty()) files.push_back(file);
  }
  for (const DiskArgument& disk : options.disks) files.push_back(disk.path);
  for (const std::string& file : files) {
    if (std::ranges::count(files, file) > 1)
      return base::fail(fmt::format("two things are to be exported to {}: name two files", file));
  }
  for (const DiskArgument& base : options.bases) {
    if (std::ranges::count(options.bases, base.disk, &DiskArgument::disk) > 1)
      return base::fail(fmt::format("--disk-base {}: named twice", base.disk));
    if (std::ranges::count(options.disks, base.disk, &DiskArgument::disk) == 0)
      return base::fail(fmt::format("--disk-base {}: there is no --disk {}", base.disk, base.disk));
    for (const DiskArgument& disk : options.disks) {
      if (base::same_file(disk.path, base.path)) {
        return base::fail(fmt::format(
            "--disk {}={} is a base image that snapshots stand on: export to another file",
            disk.disk, disk.path));
      }
    }
  }
  return {};
}

std::string base_of(const ExportOptions& options, uint32_t disk) {
  auto base = std::ranges::find(options.bases, disk, &DiskArgument::disk);
  return base == options.bases.end() ? "" : base->path;
}

snapshot::OutputFile::Existing existing(const ExportOptions& options) {
  return options.force ? snapshot::OutputFile::Existing::kReplace
                       : snapshot::OutputFile::Existing::kRefuse;
}

// `of`: what they were exported from.
void print_written(json of, const std::vector<std::string>& files, bool as_json) {
  if (as_json) {
    of["files"] = files;
    print_json(of);
    return;
  }
  for (const std::string& path : files) fmt::print("{}\n", path);
}

base::Result<int> export_head(const ExportOptions& options) {
  if (!options.memory.empty() || !options.core.empty())
    return base::fail("--head: a machine that ended left its disks, no memory: say --disk N=F");
  TRY_ASSIGN(SnapshotName name, parse_snapshot_name(options.name));
  if (!name.id_prefix.empty()) return base::fail("--head: say STORE without @ID");
  TRY_ASSIGN(auto store, snapshot::Store::open(name.store));
  TRY_ASSIGN(auto head, find_head(*store, options.head));
  std::vector<std::string> written;
  for (const DiskArgument& disk : options.disks) {
    ProgressBar bar(disk.path);
    TRY(snapshot::export_disk_of_head(*store, head, disk.disk, base_of(options, disk.disk),
                                      disk.path, existing(options), bar.progress()));
    written.push_back(disk.path);
  }
  print_written({{"branch", head.branch.text()}}, written, options.as_json);
  return kSuccess;
}

base::Result<int> export_snapshot(const ExportOptions& options) {
  TRY(check(options));
  if (!options.head.empty()) return export_head(options);
  TRY_ASSIGN(OpenSnapshot open, open_snapshot(options.name));
  std::vector<std::string> written;
  if (!options.memory.empty()) {
    ProgressBar bar(options.memory);
    TRY(snapshot::export_memory(*open.snapshot, options.memory, existing(options), bar.progress()));
    written.push_back(options.memory);
  }
  if (!options.core.empty()) {
    ProgressBar bar(options.core);
    TRY_ASSIGN(base::SectionReader sections, open.snapshot->sections());
    TRY_ASSIGN(auto cpus, snapshot::core_registers(sections));
    TRY(snapshot::export_core(*open.snapshot, cpus, options.core, existing(options),
                              bar.progress()));
    written.push_back(options.core);
  }
  for (const DiskArgument& disk : options.disks) {
    ProgressBar bar(disk.path);
    TRY(snapshot::export_disk(*open.snapshot, disk.disk, base_of(options, disk.disk), disk.path,
                              existing(options), bar.progress()));
    written.push_back(disk.path);
  }
  print_written({{"id", open.snapshot->id().text()}}, written, options.as_json);
  return kSuccess;
}

}  // namespace

Command make_export() {
  auto options = std::make_shared<ExportOptions>();
  auto syntax = std::make_unique<Syntax>("export", "memory and disks of a snapshot as plain files");
  syntax->argument("SNAPSHOT", options->name, "STORE for the newest, or STORE@ID");
  syntax->text("--memory", options->memory,
               "flat memory: offset in the file = guest-physical address", "FILE");
  syntax->text("--core", options->core, "an ELF core that gdb and crash open", "FILE");
  syntax->list("--disk", options->disks, parse_disk_argument,
               "disk N (0 is /dev/vda) as a raw image; may be given several times", "N=FILE");
  syntax->list("--disk-base", options->bases, parse_disk_argument,
               "the image that disk N was started with, where blocks of it are needed", "N=FILE");
  syntax->option(
      "--head", options->head, parse_id_prefix,
      "disks as a machine that ended left them, after the last snapshot of this branch (or over "
      "the image, where its first one came to no end)",
      "BRANCH");
  syntax->flag("--force", options->force, "replace files that exist");
  syntax->flag("--json", options->as_json, "for programs");
  syntax->footer(R"(A file gets its name when it is complete; zeros are holes in it.
Examples:
  minivmm export job1.store --core job1.core && gdb vmlinux job1.core
  minivmm export job1.store@a91f --memory ram.bin
  minivmm export job1.store --disk 0=root-then.img --disk-base 0=root.img
  minivmm export job1.store --head 3fc0 --disk 0=root-at-the-crash.img --disk-base 0=root.img)");
  return {std::move(syntax), [options] { return export_snapshot(*options); }};
}

}  // namespace cli
