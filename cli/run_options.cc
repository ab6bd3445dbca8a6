#include "cli/run_options.h"

#include <fmt/format.h>
#include <sys/sysinfo.h>

#include <algorithm>

#include "cli/runtime_dir.h"
#include "cli/size.h"
#include "cli/syntax.h"
#include "vmm/layout.h"

namespace cli {
namespace {

constexpr uint64_t kMiB = 1 << 20;
constexpr uint64_t kLeastMemory = 2 * kMiB;
constexpr uint64_t kMostMemory = uint64_t{1} << 40;

base::Result<uint64_t> parse_memory(std::string_view text) {
  TRY_ASSIGN(uint64_t bytes, parse_size(text));
  if (bytes < kLeastMemory || bytes > kMostMemory) {
    return base::fail(fmt::format("'{}' is out of range: {} to {}", text, format_size(kLeastMemory),
                                  format_size(kMostMemory)));
  }
  if (bytes % kMiB != 0) return base::fail(fmt::format("'{}' is no multiple of 1 MiB", text));
  return bytes;
}

base::Result<uint32_t> parse_cpus(std::string_view text) {
  TRY_ASSIGN(uint64_t count, parse_number(text, 1, vmm::layout::kMaxCpus));
  return static_cast<uint32_t>(count);
}

base::Result<std::string> parse_cmdline(std::string_view text) {
  if (std::ranges::any_of(text, [](unsigned char c) { return c < 0x20 || c == 0x7F; })) {
    return base::fail("a kernel command line has no control characters: write it on one line");
  }
  if (text.size() >= vmm::layout::kCommandLineMax) {
    return base::fail(fmt::format("{} bytes are too long: {} at most", text.size(),
                                  vmm::layout::kCommandLineMax - 1));
  }
  return std::string(text);
}

base::Result<vmm::boot::BootPath> parse_boot(std::string_view text) {
  if (text == "direct") return vmm::boot::BootPath::kDirect;
  if (text == "stub") return vmm::boot::BootPath::kStub;
  return base::fail(fmt::format("'{}' is no way to boot: use direct or stub", text));
}

base::Result<ConsoleKind> parse_console(std::string_view text) {
  if (text == "serial") return ConsoleKind::kSerial;
  if (text == "virtio") return ConsoleKind::kVirtio;
  if (text == "none") return ConsoleKind::kNone;
  return base::fail(fmt::format("'{}' is no console: use serial, virtio or none", text));
}

base::Result<std::string> parse_name(std::string_view text) {
  TRY(check_vm_name(text));
  return std::string(text);
}

base::Result<std::string> parse_socket(std::string_view text) {
  TRY(check_socket_path(text));
  return std::string(text);
}

base::Result<base::LogLevel> parse_log_level(std::string_view text) {
  if (auto level = base::parse_log_level(text)) return *level;
  return base::fail(
      fmt::format("'{}' is no log level: use off, error, warning, info or debug", text));
}

bool has_parameter(std::string_view cmdline, std::string_view name) {
  while (!cmdline.empty()) {
    std::string_view word = cmdline.substr(0, cmdline.find(' '));
    if (word == name || (word.starts_with(name) && word[name.size()] == '=')) return true;
    cmdline.remove_prefix(std::min(word.size() + 1, cmdline.size()));
  }
  return false;
}

}  // namespace

base::Result<std::string> parse_path(std::string_view text) {
  if (text.empty()) return base::fail("no path given");
  return std::string(text);
}

void add_run_options(Syntax& syntax, RunOptions& options) {
  syntax.option("--kernel", options.kernel, parse_path,
                "bzImage as the distribution packages it, or ELF with a PVH entry (required)",
                "FILE");
  syntax.option("--initrd", options.initrd, parse_path, "initramfs", "FILE");
  syntax.option("--cmdline", options.cmdline, parse_cmdline,
                "kernel command line; 'console=… panic=-1' go before it where it has none", "TEXT");
  syntax.option("--boot", options.boot, parse_boot,
                "how a bzImage starts: direct (unpacked by the VMM, default) or stub (by itself)",
                "{direct,stub}");
  syntax.option("--memory", options.memory_bytes, parse_memory, "RAM, default 256M", "SIZE");
  syntax.option("--cpus", options.cpus, parse_cpus, "vCPUs, 1 to 64, default 1", "N");
  syntax.list("--disk", options.disks, parse_disk,
              "raw image or block device: PATH[,ro][,raw][,serial=NAME] (repeatable)", "DISK");
  syntax.list("--net", options.nets, parse_net,
              "user[,hostfwd=tcp:[ADDR]:HOSTPORT-GUESTPORT]…[,mac=MAC] or tap=NAME[,mac=MAC] "
              "(repeatable)",
              "NET");
  syntax.flag("--rng", options.rng, "entropy from the host");
  syntax.option("--vsock", options.vsock, parse_vsock,
                "cid=N,path=SOCKET: guest sockets on the host's Unix socket", "VSOCK");
  syntax.flag("--balloon", options.balloon, "balloon with free-page reporting");
  syntax.option("--console", options.console, parse_console,
                "what the terminal is connected to: serial (default), virtio or none",
                "{serial,virtio,none}");
  add_process_options(syntax, options);
  add_store_option(syntax, options.snapshots);
  add_snapshot_options(syntax, options.snapshots);
}

void add_process_options(Syntax& syntax, RunOptions& options) {
  syntax.option(
      "--name", options.name, parse_name,
      "default: what the snapshot's machine was called (restore), else the first free of vm1, "
      "vm2, …",
      "NAME");
  syntax.option("--api-socket", options.api_socket, parse_socket,
                "control socket, default NAME.sock in the runtime directory", "PATH");
  syntax.option("--log-level", options.log_level, parse_log_level,
                "what is said on stderr: off, error, warning (default), info or debug",
                "{off,error,warning,info,debug}");
}

base::Result<void> check_run_options(const RunOptions& options) {
  if (options.kernel.empty()) {
    return base::fail("no --kernel: say which one to boot, as in --kernel /boot/vmlinuz");
  }
  struct sysinfo host{};
  ::sysinfo(&host);
  uint64_t most = (uint64_t{host.totalram} + host.totalswap) * host.mem_unit;
  if (options.memory_bytes > most) {
    return base::fail(fmt::format("--memory {}: the host has {} with swap: ask for less",
                                  format_size(options.memory_bytes), format_size(most)));
  }
  return check_snapshot_options(options.snapshots);
}

virtio::MacAddress mac_of(const RunOptions& options, size_t index) {
  const NetOption& net = options.nets[index];
  return net.mac.value_or(virtio::derive_mac(fmt::format("{}/{}", options.name, index)));
}

std::string guest_command_line(const RunOptions& options) {
  std::string line;
  auto append = [&line](std::string_view text) {
    if (!line.empty() && !text.empty()) line += ' ';
    line += text;
  };
  if (!has_parameter(options.cmdline, "console")) {
    if (options.console == ConsoleKind::kSerial) append("console=ttyS0");
    if (options.console == ConsoleKind::kVirtio) append("console=hvc0");
  }
  if (!has_parameter(options.cmdline, "panic")) append("panic=-1");
  append(options.cmdline);
  return line;
}

}  // namespace cli
