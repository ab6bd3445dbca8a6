#include "cli/clones.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <nlohmann/json.hpp>

#include "cli/saved_config.h"
#include "snapshot/eager.h"
#include "snapshot/store/store.h"
#include "vmm/base/log.h"
#include "vmm/memory_template.h"

namespace cli {

using base::fail;
using base::fail_errno;
using base::Result;

namespace {

struct Clone {
  std::string name;
  base::Fd running;  // reads one byte from the moment the guest runs
};

void replace_percent(std::string& text, uint32_t number) {
  if (size_t at = text.find('%'); at != std::string::npos) {
    text.replace(at, 1, std::to_string(number));
  }
}

// The first three bytes name who gave the address away, and stay.
Result<void> count_on(virtio::MacAddress& mac, uint32_t count) {
  uint32_t last = (uint32_t{mac[3]} << 16 | uint32_t{mac[4]} << 8 | mac[5]) + count;
  if (last > 0xFF'FFFF) return fail("--net: not as many MAC addresses follow as there are clones");
  for (int i = 5; i >= 3; --i, last >>= 8) mac[i] = static_cast<uint8_t>(last);
  return {};
}

// Their output goes to a file of each, or nowhere: a hundred machines on one terminal tell nobody
// anything, and none of them has the keyboard.
Result<void> redirect(const std::string& output) {
  TRY_ASSIGN(base::Fd nothing, base::open_file("/dev/null", O_RDWR));
  base::Fd file;
  if (!output.empty()) {
    TRY_ASSIGN(file, base::open_file(output, O_WRONLY | O_CREAT | O_APPEND));
  }
  if (::dup2(nothing.get(), STDIN_FILENO) < 0 ||
      ::dup2(file ? file.get() : nothing.get(), STDOUT_FILENO) < 0) {
    return fail_errno("redirect the console");
  }
  return {};
}

class CloneSet {
 public:
  explicit CloneSet(bool json) : json_(json) {}

  void add(pid_t pid, Clone clone) { clones_.emplace(pid, std::move(clone)); }
  // Says of each clone that its guest runs, or that it never will.
  void report_running() {
    for (auto& [pid, clone] : clones_) {
      char byte = 0;
      bool runs = TEMP_FAILURE_RETRY(::read(clone.running.get(), &byte, 1)) == 1;
      clone.running.reset();
      say(pid, clone.name, runs ? "started" : "failed", -1);
    }
  }
  // Until all ended; `signals` are passed on.
  int stay(const sigset_t& signals) {
    int status = 0;
    while (!clones_.empty()) {
      int signal = ::sigwaitinfo(&signals, nullptr);
      if (signal == SIGCHLD) {
        reap(status);
      } else if (signal > 0) {
        end(signal);
      }
    }
    return status;
  }
  void end(int signal) const {
    for (const auto& [pid, clone] : clones_) ::kill(pid, signal);
  }

 private:
  void reap(int& status) {
    int raw = 0;
    for (pid_t pid = 0; (pid = ::waitpid(-1, &raw, WNOHANG)) > 0;) {
      auto clone = clones_.find(pid);
      if (clone == clones_.end()) continue;
      int own = WIFEXITED(raw) ? WEXITSTATUS(raw) : 128 + WTERMSIG(raw);
      say(pid, clone->second.name, "ended", own);
      if (status == 0) status = own;
      clones_.erase(clone);
    }
  }
  void say(pid_t pid, const std::string& name, const char* state, int status) const {
    if (json_) {
      nlohmann::json line{{"name", name}, {"pid", pid}, {"state", state}};
      if (status >= 0) line["status"] = status;
      fmt::print("{}\n", line.dump());
    } else if (status >= 0) {
      fmt::print("{}  pid {}  {} with status {}\n", name, pid, state, status);
    } else {
      fmt::print("{}  pid {}  {}\n", name, pid, state);
    }
    std::fflush(stdout);
  }

  bool json_;
  std::map<pid_t, Clone> clones_;
};

// The snapshot by its whole id, so that all clones begin at the same one whatever is taken
// meanwhile; and its memory.
Result<vmm::MemoryTemplate> make_template(RestoreOptions& asked) {
  TRY_ASSIGN(auto store, snapshot::Store::open(asked.snapshot.store));
  TRY_ASSIGN(snapshot::Id id, store->resolve(asked.snapshot.id_prefix));
  asked.snapshot.id_prefix = id.text();
  TRY_ASSIGN(auto from, store->load(id));
  TRY_ASSIGN(RunOptions saved, parse_saved_config(from->manifest().config));
  if (asked.host.name.empty()) asked.host.name = saved.name;
  return vmm::MemoryTemplate::create(saved.memory_bytes,
                                     [&](vmm::GuestMemory& memory) -> Result<void> {
                                       TRY(snapshot::check_memory(memory, *from));
                                       return snapshot::fill_memory(memory, *store, *from);
                                     });
}

Result<int> run_clone(const RestoreOptions& options, base::Fd running) {
  // Not in the terminal's foreground: its Ctrl-C comes through the first process, once.
  ::setpgid(0, 0);
  TRY(redirect(options.console_file));
  RestoreOptions own = options;
  own.on_running = [&running] {
    char byte = 1;
    (void)!::write(running.get(), &byte, 1);
    running.reset();
  };
  return restore_machine(own);
}

}  // namespace

Result<RestoreOptions> options_of_clone(const RestoreOptions& asked, uint32_t number) {
  RestoreOptions own = asked;
  own.host.name = fmt::format("{}-{}", asked.host.name, number);
  own.host.api_socket.clear();
  if (!asked.vsock_path.empty() && asked.vsock_path.find('%') == std::string::npos) {
    return fail("--vsock-path: clones need a socket each: write % where its number is to stand");
  }
  replace_percent(own.vsock_path, number);
  if (own.vsock_cid) {
    if (UINT32_MAX - 1 - *own.vsock_cid < number - 1) {
      return fail(fmt::format("--vsock-cid: there is none left for clone {}", number));
    }
    *own.vsock_cid += number - 1;
  }
  replace_percent(own.console_file, number);
  // Those of one machine may follow each other.
  auto addresses = std::ranges::count_if(own.host.nets,
                                         [](const NetOption& net) { return net.mac.has_value(); });
  for (NetOption& net : own.host.nets) {
    if (!net.tap.empty() && net.tap.find('%') == std::string::npos) {
      return fail("--net: clones need a tap each: write % where its number is to stand");
    }
    replace_percent(net.tap, number);
    if (net.mac) TRY(count_on(*net.mac, (number - 1) * static_cast<uint32_t>(addresses)));
    for (virtio::HostForward& forward : net.host_forwards) {
      uint32_t port = forward.host_port + number - 1;
      if (port > UINT16_MAX) {
        return fail(fmt::format("--net: clone {} would need host port {}", number, port));
      }
      forward.host_port = static_cast<uint16_t>(port);
    }
  }
  return own;
}

Result<int> restore_clones(const RestoreOptions& wanted, uint32_t count) {
  if (!wanted.host.api_socket.empty()) {
    return fail("--api-socket is of one machine; clones have theirs where `minivmm ps` finds them");
  }
  // The last one has the highest ports: better now than after all memory was read.
  TRY(options_of_clone(wanted, count));
  RestoreOptions asked = wanted;
  TRY_ASSIGN(vmm::MemoryTemplate memory, make_template(asked));
  asked.memory = memory.copy();

  sigset_t signals, before;
  sigemptyset(&signals);
  for (int signal : {SIGTERM, SIGINT, SIGHUP, SIGCHLD}) sigaddset(&signals, signal);
  ::sigprocmask(SIG_BLOCK, &signals, &before);
  CloneSet clones(asked.report_json);
  for (uint32_t number = 1; number <= count; ++number) {
    auto own = options_of_clone(asked, number);
    int ends[2] = {-1, -1};
    pid_t pid = -1;
    if (own && ::pipe2(ends, O_CLOEXEC) == 0) pid = ::fork();
    base::Fd read_end(ends[0]), write_end(ends[1]);
    if (pid == 0) {
      ::sigprocmask(SIG_SETMASK, &before, nullptr);
      return run_clone(*own, std::move(write_end));
    }
    if (pid < 0) {
      auto error = own ? base::Error(fmt::format("clone {}", number), errno) : own.error();
      clones.end(SIGKILL);
      return std::unexpected(error);
    }
    clones.add(pid, {own->host.name, std::move(read_end)});
  }
  clones.report_running();
  return clones.stay(signals);
}

}  // namespace cli
