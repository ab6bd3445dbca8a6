// What `minivmm run` was asked for: plain data, checked as far as it can be without opening
// anything. Made by the command-line parser, read by run_machine.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cli/device_options.h"
#include "cli/snapshot_options.h"
#include "cli/syntax.h"
#include "vmm/base/log.h"
#include "vmm/base/result.h"
#include "vmm/boot/kernel.h"

namespace CLI {
class App;
}

namespace cli {

enum class ConsoleKind { kSerial, kVirtio, kNone };

struct RunOptions {
  std::string kernel;
  std::string initrd;   // empty: none
  std::string cmdline;  // what --cmdline said; the guest gets guest_command_line(*this)
  vmm::boot::BootPath boot = vmm::boot::BootPath::kDirect;
  uint64_t memory_bytes = 256ull << 20;  // a multiple of 1 MiB
  uint32_t cpus = 1;
  std::vector<DiskOption> disks;
  std::vector<NetOption> nets;
  bool rng = false;
  bool balloon = false;
  std::optional<VsockOption> vsock;
  ConsoleKind console = ConsoleKind::kSerial;
  std::string name;        // empty: the first free of vm1, vm2, …
  std::string api_socket;  // empty: NAME.sock in the runtime directory
  base::LogLevel log_level = base::LogLevel::kWarning;
  SnapshotOptions snapshots;
};

// Those that `restore` has as well: name, socket and log level.
void add_process_options(Syntax& syntax, RunOptions& options);
// Adds the options of `run` to `syntax`; parsing writes them to `options`, which outlives `syntax`.
void add_run_options(Syntax& syntax, RunOptions& options);

// What the parser cannot see by looking at one option: required ones, and memory against the host.
base::Result<void> check_run_options(const RunOptions& options);

base::Result<std::string> parse_path(std::string_view text);  // not empty

// The address of network `index`: as asked for, else one that follows from the machine's name.
virtio::MacAddress mac_of(const RunOptions& options, size_t index);

// The kernel command line: "console=… panic=-1", each only where --cmdline has no option of that
// name, then --cmdline. panic=-1 makes a Linux that panics reset instead of hanging for ever.
std::string guest_command_line(const RunOptions& options);

}  // namespace cli
