// One virtual CPU: its KVM handle and the thread that runs it. The thread is in one of three
// places: in the guest, handling an exit, or parked. park() brings it to the third from anywhere,
// with the exit in hand completed, so that its state may be read; parked, it runs tasks, with which
// all vCPUs read their own state at the same time.
//
// A pause is to take tens of microseconds, so nothing here holds a lock: the thread and those who
// control it meet in two words, and who waits spins before it sleeps. A thread inside a page fault
// that waits for userfaultfd parks when its page is there.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <thread>

#include "vmm/bus.h"
#include "vmm/kvm.h"
#include "vmm/stop_reason.h"

namespace vmm {

// What a vCPU's thread does for somebody else while it is parked.
using VcpuTask = std::function<void(uint32_t index, const KvmVcpu& kvm)>;

class Vcpu {
 public:
  // The buses outlive the vCPU. `on_stop` is called on the vCPU's thread when the guest or KVM ends
  // the run; the thread is then parked. `spin`: how long a wait for the thread, or of the parked
  // thread, keeps its processor before it sleeps; 0 where there are more threads than processors.
  Vcpu(uint32_t index, KvmVcpu kvm, const Bus& pio, const Bus& mmio, std::chrono::nanoseconds spin,
       std::function<void(StopReason)> on_stop);
  ~Vcpu();  // ends the thread

  // Starts the thread, parked until unpark().
  base::Result<void> start();
  // Asks the thread to park, or to run; returns at once. park() and unpark() are called by one
  // thread at a time, the vCPU's own included. Any other may wait.
  void park();
  void unpark();
  void wait_parked();
  // Has the thread call `task` once, as soon as it is parked; before start() the caller does.
  // wait_task() returns when that is done, and comes before unpark() and the next task; `task`
  // lives until then.
  void begin_task(const VcpuTask& task);
  void wait_task();

  // Its thread's ID; 0 before it has one.
  pid_t thread_id() const { return thread_id_; }
  uint32_t index() const { return index_; }
  // Valid while parked, or before start().
  const KvmVcpu& kvm() const { return kvm_; }
  uint64_t exits() const { return exits_.load(std::memory_order_relaxed); }

  // Installs the signal that takes a thread out of KVM_RUN; to be called once, before any start().
  static void install_kick_signal();

 private:
  enum Goal : uint32_t { kRun, kPark, kEnd };
  Goal goal() const { return Goal(command_.load() & kGoalMask); }
  // Changes the goal, unless it is kEnd, and wakes the thread where it is parked.
  void set_goal(Goal goal);
  void kick();
  void thread_main();
  // Parks while that is the goal; false when the thread is to end.
  bool wait_to_run();
  // Runs tasks until the goal is another.
  void serve_while_parked();
  void run_task();
  void handle_exit();
  void handle_io();
  void handle_mmio();
  void stop(StopReason reason);
  // kvm_run's immediate_exit is written by other threads while the kernel reads it.
  void set_immediate_exit(bool on);

  static constexpr uint32_t kGoalMask = 3;
  static constexpr uint32_t kNextCommand = 4;  // above the goal: counts commands

  const uint32_t index_;
  KvmVcpu kvm_;
  const Bus& pio_;
  const Bus& mmio_;
  const std::chrono::nanoseconds spin_;
  std::function<void(StopReason)> on_stop_;

  // The two words, and why their accesses are sequentially consistent: the thread says that it is
  // not parked and then looks at the goal; who parks it sets the goal and then looks whether it is
  // parked. One of them sees the other.
  std::atomic<uint32_t> command_ = kPark;
  std::atomic<uint32_t> parked_ = 1;  // a vCPU that has no thread yet is
  std::atomic<const VcpuTask*> task_ = nullptr;
  std::atomic<uint32_t> task_pending_ = 0;
  // Only the vCPU's thread: the last exit's data is not in the guest yet (api.rst, KVM_RUN: "the
  // kernel side will first finish incomplete operations").
  bool completion_pending_ = false;
  std::atomic<uint64_t> exits_ = 0;
  std::atomic<bool> started_ = false;  // thread_ may be signalled
  std::atomic<pid_t> thread_id_ = 0;
  std::thread thread_;
};

}  // namespace vmm
