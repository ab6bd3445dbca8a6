// minivmm snapshot: takes a snapshot of a running machine, which runs on.
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "cli/commands/command.h"
#include "cli/commands/named_vm.h"
#include "cli/control_client.h"
#include "cli/exit_status.h"
#include "cli/runtime_dir.h"
#include "cli/snapshot_json.h"
#include "cli/snapshot_options.h"
#include "cli/syntax.h"
#include "vmm/base/fd.h"
#include "vmm/base/log.h"
#include "vmm/base/path.h"

namespace cli {
namespace {

using base::fail;
using base::Result;
using nlohmann::json;

constexpr int kPollMs = 50;
constexpr const char* kClearLine = "\r\033[K";

struct Options {
  snapshot::SnapshotService::Request request;
  std::chrono::nanoseconds max_pause{0};
  snapshot::Capture::OnHot on_hot = snapshot::Capture::OnHot::kThrottle;
  bool as_json = false;
};

Result<base::Fd> take_interrupts() {
  sigset_t taken;
  sigemptyset(&taken);
  for (int number : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&taken, number);
  pthread_sigmask(SIG_BLOCK, &taken, nullptr);
  base::Fd signals(::signalfd(-1, &taken, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!signals) return base::fail_errno("signalfd");
  return signals;
}

// As ask_or_fail(), of a machine that may end meanwhile.
Result<std::string> ask_running(const RunningVm& vm, const ControlRequest& request) {
  auto answer = ask_or_fail(vm.socket, request);
  if (answer || !ended(vm.name, answer.error())) return answer;
  return fail(vm.name +
              " ended before it said how the snapshot went; `minivmm list STORE` shows "
              "whether it is there");
}

// Until snapshot `number` has ended; Ctrl-C cancels it.
Result<json> wait_for_end(const RunningVm& vm, uint64_t number, const base::Fd& signals) {
  bool terminal = ::isatty(STDERR_FILENO) == 1;
  for (;;) {
    pollfd waiting{signals.get(), POLLIN, 0};
    ::poll(&waiting, 1, kPollMs);
    if (waiting.revents & POLLIN) {
      signalfd_siginfo info;
      (void)!::read(signals.get(), &info, sizeof info);
      TRY(ask_running(vm, {"DELETE", "/snapshots", ""}));
    }
    TRY_ASSIGN(std::string body, ask_running(vm, {"GET", "/snapshots", ""}));
    json status = json::parse(body, nullptr, false);
    if (!status.is_object()) return fail(vm.name + " does not answer with JSON");
    // Others may have begun meanwhile.
    for (const json& previous : json(status.value("previous", json::array()))) {
      if (previous.value("number", uint64_t{0}) == number) status = previous;
    }
    if (status.value("number", uint64_t{0}) != number) {
      return fail(
          "the result is gone: another snapshot was taken meanwhile; `minivmm list` has both");
    }
    if (status.value("running", false)) {
      if (terminal) fmt::print(stderr, "{}{}", kClearLine, describe_progress(status));
      continue;
    }
    if (terminal) fmt::print(stderr, kClearLine);
    if (status.contains("result")) return status["result"];
    return fail(base::one_line(status.value("error", "no result")));
  }
}

Result<int> take(const std::string& name, const Options& options) {
  TRY_ASSIGN(RunningVm vm, find_vm(name));
  TRY_ASSIGN(base::Fd signals, take_interrupts());
  snapshot::SnapshotService::Request request = options.request;
  if (!request.store_path.empty()) {
    // The machine's process may have another working directory.
    TRY_ASSIGN(request.store_path, base::absolute_path(request.store_path));
  }
  TRY_ASSIGN(std::string body,
             ask_or_fail(vm.socket, {"PUT", "/snapshots", snapshot_request_json(request).dump()}));
  json begun = json::parse(body, nullptr, false);
  if (!begun.is_object()) return fail(name + " does not answer with JSON");
  TRY_ASSIGN(json result, wait_for_end(vm, begun.value("number", uint64_t{0}), signals));
  if (options.as_json) {
    fmt::print("{}\n", result.dump(2));
  } else {
    fmt::print("{}", describe_outcome(result));
  }
  return kSuccess;
}

}  // namespace

Command make_snapshot() {
  auto options = std::make_shared<Options>();
  auto syntax = std::make_unique<Syntax>(
      "snapshot", "take a snapshot of a running machine, disks included; it runs on");
  auto name = add_vm_name(*syntax);
  syntax->flag("--full", options->request.full, "everything, not only what changed");
  syntax->text("--store", options->request.store_path,
               "directory of the snapshots; needed once, where `run` had none (a machine with "
               "disks has to be run with one)",
               "DIR");
  const PauseOptions pause = add_pause_options(*syntax, options->max_pause, options->on_hot);
  syntax->flag("--stop", options->request.stop,
               "end the machine with it: nothing that happens after the snapshot is lost");
  syntax->flag("--json", options->as_json, "for programs");
  syntax->footer(
      "Ctrl-C cancels: the guest and the store are then as before.\n\n"
      "Examples:\n"
      "  minivmm snapshot job1 --store /srv/snapshots/job1\n"
      "  minivmm snapshot job1\n"
      "  minivmm snapshot job1 --stop && minivmm restore /srv/snapshots/job1");
  auto run = [name, options, pause]() -> Result<int> {
    if (pause.max_pause.given()) {
      options->request.max_pause_ns = static_cast<uint64_t>(options->max_pause.count());
    }
    if (pause.on_hot.given()) options->request.on_hot = options->on_hot;
    return take(*name, *options);
  };
  return {std::move(syntax), run};
}

}  // namespace cli
