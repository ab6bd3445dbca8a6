// minivmm restore: a machine from a snapshot goes on where it was.
#include "cli/restore.h"

#include <fmt/format.h>

#include <memory>

#include "cli/clones.h"
#include "cli/commands/command.h"
#include "cli/exit_status.h"
#include "cli/parsed_option.h"
#include "cli/size.h"
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

base::Result<std::string> parse_path(std::string_view text) {
  if (text.empty()) return base::fail("no path given");
  return std::string(text);
}

}  // namespace

Command add_restore(CLI::App& root) {
  auto options = std::make_shared<RestoreOptions>();
  auto clones = std::make_shared<std::optional<uint32_t>>();
  auto warm = std::make_shared<bool>(false);
  CLI::App* app =
      root.add_subcommand("restore", "let the machine of a snapshot go on where it was");
  app->add_option_function<std::string>(
         "STORE[@ID]",
         [options](const std::string& text) {
           options->snapshot = parse_or_throw("STORE[@ID]", text, parse_snapshot_name);
         },
         "the store's directory, and the beginning of an id; none: the newest")
      ->required();
  add_parsed_list(*app, "--disk", options->host.disks, parse_disk,
                  "base image of each disk, in the order the machine had them (repeatable)",
                  "DISK");
  add_parsed_list(*app, "--net", options->host.nets, parse_net,
                  "the host's side of each network, as for run; default: user", "NET");
  add_parsed(*app, "--vsock-path", options->vsock_path, parse_path, "the host's side of the vsock",
             "SOCKET");
  add_parsed(*app, "--vsock-cid", options->vsock_cid, parse_cid,
             "the guest's vsock address from now on; default: as before", "CID");
  app->add_flag("--eager,!--lazy", options->eager,
                "read and check all memory before the guest runs");
  CLI::Option* paused = app->add_flag("--paused", options->paused, "wait for `minivmm resume`")
                            ->disable_flag_override();
  add_parsed(*app, "--clock", options->clock, parse_clock,
             "the guest's clocks: continue (no jump, default) or catchup (wall time)",
             "{continue,catchup}");
  CLI::Option* many = add_parsed(*app, "--clones", *clones, parse_clones,
                                 "that many machines, NAME-1 and on, which share what none of "
                                 "them writes; the process stays until the last one ended",
                                 "N");
  add_parsed(*app, "--console-file", options->console_file, parse_path,
             "where a clone's console output goes, % is its number; default: nowhere", "FILE")
      ->needs(many);
  app->add_flag("--warm", *warm,
                "make the clones ahead: each line of input starts one at once, the end of the "
                "input lets the others go")
      ->disable_flag_override()
      ->needs(many)
      ->excludes(paused);
  app->add_flag("--json", options->report_json, "clones are reported as JSON, one a line")
      ->needs(many);
  add_process_options(*app, options->host);
  add_snapshot_options(*app, options->host.snapshots);
  app->remove_option(app->get_option("--store"));
  app->footer(
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
  return {app, run, kBadInput};
}

}  // namespace cli
