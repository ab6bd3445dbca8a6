#include "vmm/vcpu.h"

#include <fmt/format.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <cerrno>

#include "vmm/base/log.h"
#include "vmm/base/thread.h"

namespace vmm {

namespace {

const int kKickSignal = SIGRTMIN;
constexpr std::chrono::nanoseconds kNoSpin{0};

void relax() { __builtin_ia32_pause(); }

// Returns once `word` is not `old`; spins for that long before it sleeps.
void wait_while(const std::atomic<uint32_t>& word, uint32_t old, std::chrono::nanoseconds spin) {
  constexpr int kLooksPerClock = 32;
  if (spin.count() > 0) {
    auto end = std::chrono::steady_clock::now() + spin;
    do {
      for (int i = 0; i < kLooksPerClock; ++i) {
        if (word.load() != old) return;
        relax();
      }
    } while (std::chrono::steady_clock::now() < end);
  }
  word.wait(old);
}

}  // namespace

void Vcpu::install_kick_signal() {
  struct sigaction action{};
  action.sa_handler = [](int) {};  // no SA_RESTART: KVM_RUN returns with EINTR
  sigaction(kKickSignal, &action, nullptr);
}

Vcpu::Vcpu(uint32_t index, KvmVcpu kvm, const Bus& pio, const Bus& mmio,
           std::chrono::nanoseconds spin, std::function<void(StopReason)> on_stop)
    : index_(index),
      kvm_(std::move(kvm)),
      pio_(pio),
      mmio_(mmio),
      spin_(spin),
      on_stop_(std::move(on_stop)) {}

Vcpu::~Vcpu() {
  if (!thread_.joinable()) return;
  set_goal(kEnd);
  kick();
  thread_.join();
}

base::Result<void> Vcpu::start() {
  TRY_ASSIGN(thread_, base::start_thread(
                          fmt::format("vcpu{}", index_), [this] { thread_main(); }, kKickSignal));
  // Only now: who asks the thread to park while it is being made does so by the goal alone.
  started_ = true;
  return {};
}

void Vcpu::park() {
  set_goal(kPark);
  kick();
}

void Vcpu::unpark() { set_goal(kRun); }

void Vcpu::set_goal(Goal goal) {
  uint32_t before = command_.load();
  do {
    const uint32_t now = before & kGoalMask;
    if (now == kEnd || now == goal) return;
  } while (!command_.compare_exchange_weak(
      before, ((before & ~kGoalMask) + kNextCommand) | static_cast<uint32_t>(goal)));
  command_.notify_all();
}

void Vcpu::kick() {
  // The flag for a thread about to enter the guest, the signal for one inside.
  set_immediate_exit(true);
  if (started_ && parked_.load() == 0) pthread_kill(thread_.native_handle(), kKickSignal);
}

void Vcpu::wait_parked() { wait_while(parked_, 0, spin_); }

void Vcpu::begin_task(const VcpuTask& task) {
  if (!started_) return task(index_, kvm_);
  task_pending_ = 1;
  task_ = &task;
  command_.fetch_add(kNextCommand);
  command_.notify_all();
}

void Vcpu::wait_task() { wait_while(task_pending_, 1, spin_); }

void Vcpu::run_task() {
  const VcpuTask* task = task_.exchange(nullptr);
  if (task == nullptr) return;
  (*task)(index_, kvm_);
  task_pending_ = 0;
  task_pending_.notify_all();
}

void Vcpu::set_immediate_exit(bool on) { std::atomic_ref(kvm_.run().immediate_exit).store(on); }

bool Vcpu::wait_to_run() {
  for (;;) {
    parked_ = 0;
    set_immediate_exit(false);
    // After the two stores: who has set another goal since has set immediate_exit after it, or is
    // seen here.
    if (goal() == kRun) return true;
    set_immediate_exit(true);
    // One more KVM_RUN, which leaves at once, completes the exit in hand.
    if (completion_pending_) return true;
    parked_ = 1;
    parked_.notify_all();
    serve_while_parked();
    if (goal() == kEnd) return false;
  }
}

void Vcpu::serve_while_parked() {
  for (;;) {
    uint32_t seen = command_.load();
    run_task();
    if ((seen & kGoalMask) != kPark) return;
    // Before its first command nobody waits for it.
    wait_while(command_, seen, seen < kNextCommand ? kNoSpin : spin_);
  }
}

void Vcpu::thread_main() {
  thread_id_ = ::gettid();
  while (wait_to_run()) {
    int error = kvm_.enter();
    exits_.fetch_add(1, std::memory_order_relaxed);
    completion_pending_ = false;
    if (error == 0) {
      handle_exit();
    } else if (error != EINTR && error != EAGAIN) {
      stop({StopReason::Kind::kError, 0, fmt::format("KVM_RUN: {}", strerror(error))});
    }
  }
}

void Vcpu::stop(StopReason reason) {
  // Parked before anybody hears of it, so that the guest does not run on meanwhile.
  set_goal(kPark);
  on_stop_(std::move(reason));
}

void Vcpu::handle_exit() {
  kvm_run& run = kvm_.run();
  switch (run.exit_reason) {
    case KVM_EXIT_IO:
      return handle_io();
    case KVM_EXIT_MMIO:
      return handle_mmio();
    case KVM_EXIT_INTR:
    case KVM_EXIT_HLT:  // no in-kernel halt: nothing to do but to go on
      return;
    case KVM_EXIT_SHUTDOWN:
      return stop({StopReason::Kind::kReset, 0, "triple fault"});
    case KVM_EXIT_SYSTEM_EVENT:
      if (run.system_event.type == KVM_SYSTEM_EVENT_SHUTDOWN) {
        return stop({StopReason::Kind::kPowerOff, 0, ""});
      }
      return stop({StopReason::Kind::kReset, 0, ""});
    case KVM_EXIT_FAIL_ENTRY:
      return stop({StopReason::Kind::kError, 0,
                   fmt::format("vCPU {}: the processor refused the guest's state (reason {:#x})",
                               index_, run.fail_entry.hardware_entry_failure_reason)});
    case KVM_EXIT_INTERNAL_ERROR: {
      kvm_regs regs{};
      (void)kvm_.control(KVM_GET_REGS, &regs, "KVM_GET_REGS");
      return stop({StopReason::Kind::kError, 0,
                   fmt::format("vCPU {}: KVM could not emulate the instruction at {:#x} "
                               "(internal error {}); `minivmm doctor` says what this host's KVM "
                               "can do",
                               index_, regs.rip, run.internal.suberror)});
    }
    default:
      return stop({StopReason::Kind::kError, 0,
                   fmt::format("vCPU {}: unexpected exit {}", index_, run.exit_reason)});
  }
}

void Vcpu::handle_io() {
  kvm_run& run = kvm_.run();
  completion_pending_ = true;
  auto* bytes = reinterpret_cast<uint8_t*>(&run) + run.io.data_offset;
  // `count` > 1 for rep ins and outs: the same port again and again.
  for (uint32_t i = 0; i < run.io.count; ++i, bytes += run.io.size) {
    if (run.io.direction == KVM_EXIT_IO_OUT) {
      pio_.write(run.io.port, {bytes, run.io.size});
    } else {
      pio_.read(run.io.port, {bytes, run.io.size});
    }
  }
}

void Vcpu::handle_mmio() {
  kvm_run& run = kvm_.run();
  completion_pending_ = true;
  std::span<uint8_t> data(run.mmio.data, run.mmio.len);
  if (run.mmio.is_write) {
    mmio_.write(run.mmio.phys_addr, data);
  } else {
    mmio_.read(run.mmio.phys_addr, data);
  }
}

}  // namespace vmm
