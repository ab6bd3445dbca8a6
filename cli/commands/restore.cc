// minivmm restore: a machine from a snapshot goes on where it was.
#include "cli/restore.h"

#include <fmt/format.h>

#include <memory>

#include "cli/clones.h"
#include "cli/commands/command.h"
#include "cli/exit_status.h"
#include "cli/size.h"
#include "cli/syntax.h"
#include "vmm/base/log.h"

namespace cli {
namespace {

base::Result<vmm::ClockPolicy> parse_clock(std::string_view text) {
  if (text == "continue") return vmm::ClockPolicy::kContinue;
  if (text == "catchup") return vmm::ClockPolicy::kCatchUp;
  return base::fail(fmt::format("'{}' is neither continue nor catchup", text));
}

base::Result<uint32_t> parse_clones(std::string_view text) {
  TRY_ASSIGN(uint64_t number, parse_number(text, 1, kMostClones));
  return static_cast<uint32_t>(number);
}

}  // namespace

Command make_restore() {
  auto options = std::make_shared<RestoreOptions>();
  auto clones = std::make_shared<std::optional<uint32_t>>();
  auto warm = std::make_shared<bool>(false);
  auto syntax =
      std::make_unique<Syntax>("restore", "let the machine of a snapshot go on where it was");
  syntax->argument("STORE[@ID]", options->snapshot, parse_snapshot_name,
                   "the store's directory, and the beginning of an id; none: the newest");
  syntax->list("--disk", options->host.disks, parse_disk,
               "base image of each disk, in the order the machine had them (repeatable)", "DISK");
  syntax->list("--net", options->host.nets, parse_net,
               "the host's side of each network, as for run; default: user", "NET");
  syntax->option("--vsock-path", options->vsock_path, parse_path, "the host's side of the vsock",
                 "SOCKET");
  syntax->option("--vsock-cid", options->vsock_cid, parse_cid,
                 "the guest's vsock address from now on; default: as before", "CID");
  syntax->flag("--eager", options->eager, "read and check all memory before the guest runs");
  syntax->flag("--lazy", options->eager, "bring memory when the guest wants it (default)", false);
  Option& paused = syntax->flag("--paused", options->paused, "wait for `minivmm resume`");
  syntax->option("--clock", options->clock, parse_clock,
                 "the guest's clocks: continue (no jump, default) or catchup (wall time)",
                 "{continue,catchup}");
  Option& many = syntax->option("--clones", *clones, parse_clones,
                                "that many machines, NAME-1 and on, which share what none of "
                                "them writes; the process stays until the last one ended",
                                "N");
  syntax
      ->option("--console-file", options->console_file, parse_path,
               "where a clone's console output goes, % is its number; default: nowhere", "FILE")
      .needs(many);
  syntax
      ->flag("--warm", *warm,
             "make the clones ahead: each line of input starts one at once, the end of the "
             "input lets the others go")
      .needs(many)
      .excludes(paused);
  syntax->flag("--json", options->report_json, "clones are reported as JSON, one a line")
      .needs(many);
  add_process_options(*syntax, options->host);
  add_snapshot_options(*syntax, options->host.snapshots);
  syntax->footer(
      std::string(
          "The machine continues its chain: its next snapshot is incremental, in the same\n"
          "store. Restoring an older snapshot begins a branch; nothing newer is lost.\n\n"
          "Examples:\n"
          "  minivmm restore /srv/snapshots/job1 --disk root.img\n"
          "  minivmm restore /srv/snapshots/job1@3fa9 --name try2 --disk root.img\n"
          "  minivmm restore warm.store --clones 100 --disk root.img\n"
          "  minivmm restore warm.store --clones 100 --warm --disk root.img <>requests.fifo\n"
          "  minivmm restore w.store --clones 9 --net tap=vm% --vsock-path /tmp/v% "
          "--vsock-cid 100\n"
          "  minivmm restore job1.store --eager --paused --clock catchup\n\n") +
      kExitStatusHelp);
  auto run = [options, clones, warm]() -> base::Result<int> {
    base::set_log_level(options->host.log_level);
    if (*clones) return restore_clones(*options, **clones, *warm);
    return restore_machine(*options);
  };
  return {std::move(syntax), run, kBadInput};
}

}  // namespace cli
