// minivmm run: boots a machine and stays with it until it ends.
#include "cli/run.h"

#include <memory>

#include "cli/commands/command.h"
#include "cli/escape_keys.h"
#include "cli/exit_status.h"
#include "vmm/base/log.h"

namespace cli {

Command make_run() {
  auto options = std::make_shared<RunOptions>();
  auto syntax = std::make_unique<Syntax>("run", "boot a machine and stay with it until it ends");
  add_run_options(*syntax, *options);
  syntax->footer(std::string(R"(Examples:
  minivmm run --kernel /boot/vmlinuz --initrd initrd.img
  minivmm run --kernel vmlinuz --disk root.img --cmdline 'root=/dev/vda rw' --memory 1G --cpus 2
  minivmm run --kernel vmlinuz --initrd i --disk data.img,ro --net user,hostfwd=tcp::2222-22
  minivmm run --kernel vmlinuz --initrd i --rng --vsock cid=3,path=/tmp/vsock --name job1

On a terminal: )") +
                 kEscapeKeysHelp +
                 ".\nSIGTERM, SIGINT and SIGHUP press the power button, a second one stops.\n\n" +
                 kExitStatusHelp);
  auto run = [options]() -> base::Result<int> {
    base::set_log_level(options->log_level);
    TRY(check_run_options(*options));
    return run_machine(*options);
  };
  return {std::move(syntax), run, kBadInput};
}

}  // namespace cli
