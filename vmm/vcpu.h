// One virtual CPU: its KVM handle and the thread that runs it. The thread is in one of three
// places: in the guest, handling an exit, or parked. park() brings it to the third from anywhere,
// with the exit in hand completed, so that its state may be read.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>

#include "vmm/bus.h"
#include "vmm/kvm.h"
#include "vmm/stop_reason.h"

namespace vmm {

class Vcpu {
 public:
  // The buses outlive the vCPU. `on_stop` is called on the vCPU's thread when the guest or KVM ends
  // the run; the thread is then parked.
  Vcpu(uint32_t index, KvmVcpu kvm, const Bus& pio, const Bus& mmio,
       std::function<void(StopReason)> on_stop);
  ~Vcpu();  // ends the thread

  // Starts the thread, parked until unpark().
  base::Result<void> start();
  // Asks the thread to park, or to run; returns at once. Any thread but the vCPU's own may wait.
  void park();
  void unpark();
  void wait_parked();

  uint32_t index() const { return index_; }
  // Valid while parked, or before start().
  const KvmVcpu& kvm() const { return kvm_; }
  uint64_t exits() const { return exits_.load(std::memory_order_relaxed); }

  // Installs the signal that takes a thread out of KVM_RUN; to be called once, before any start().
  static void install_kick_signal();

 private:
  enum class Goal { kRun, kPark, kEnd };
  void set_goal(Goal goal);
  void thread_main();
  // Parks while that is the goal; false when the thread is to end.
  bool wait_to_run();
  void handle_exit();
  void handle_io();
  void handle_mmio();
  void stop(StopReason reason);
  // kvm_run's immediate_exit is written by other threads while the kernel reads it.
  void set_immediate_exit(bool on);

  const uint32_t index_;
  KvmVcpu kvm_;
  const Bus& pio_;
  const Bus& mmio_;
  std::function<void(StopReason)> on_stop_;

  std::mutex mutex_;  // guards goal_, parked_ and running_
  std::condition_variable changed_;
  Goal goal_ = Goal::kPark;
  bool parked_ = true;  // a vCPU that has no thread yet is
  // Only the vCPU's thread: the last exit's data is not in the guest yet (api.rst, KVM_RUN: "the
  // kernel side will first finish incomplete operations").
  bool completion_pending_ = false;
  std::atomic<uint64_t> exits_ = 0;
  std::thread thread_;
};

}  // namespace vmm
