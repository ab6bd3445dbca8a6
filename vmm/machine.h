// The machine: guest memory, interrupt chips, buses and vCPUs on KVM. It knows no device; devices
// are attached to its buses from outside (devices/platform.h), and must outlive stop() and the
// machine's destruction of its vCPU threads (halt_threads()).
//
// create() → devices attach → boot() → run() … pause()/run() … → a StopReason.
// create() → load_state() → devices attach → set_state() → devices restored → run() … (restored)
// pause(), run() and stop() may be called from any thread that is not a vCPU's.
//
// The guest runs while the user lets it (run(), pause()), nobody holds it (hold(), release()) and
// it has not stopped. A snapshot holds: it leaves a machine paused that the user paused, and a
// user who says run() meanwhile is obeyed when it is released.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "vmm/base/fd.h"
#include "vmm/base/result.h"
#include "vmm/base/sections.h"
#include "vmm/boot/kernel.h"
#include "vmm/bus.h"
#include "vmm/cpu_features.h"
#include "vmm/dirty_log.h"
#include "vmm/guest_memory.h"
#include "vmm/kvm.h"
#include "vmm/kvm_interrupts.h"
#include "vmm/stop_reason.h"
#include "vmm/vcpu.h"
#include "vmm/vm_state.h"

namespace vmm {

struct SavedMachine;

// KVM's part of a machine of which nothing is known yet: a restore has it made while it reads what
// the machine is to be.
struct EmptyVm {
  Kvm kvm;
  KvmVm vm;

  static base::Result<EmptyVm> create();
};

class Machine {
 public:
  struct Config {
    uint64_t memory_bytes = 0;
    uint32_t cpus = 1;
    // The guest's writes are logged from its first instruction on: of a machine that has a
    // snapshot already. Otherwise from dirty_log().start() on.
    bool log_from_start = false;
    // What guest memory is at first (not needed once the machine is made).
    GuestMemory::Backing memory = {};
    // Of a saved machine (take_cpuid()), one for each vCPU: a machine to be restored. Features that
    // this host lacks are refused.
    std::vector<CpuidTable> cpuid = {};
  };
  static base::Result<std::unique_ptr<Machine>> create(const Config& config);
  // Of a VM and memory that are there already; what `config` says of memory is not looked at.
  static base::Result<std::unique_ptr<Machine>> create(EmptyVm vm,
                                                       std::shared_ptr<GuestMemory> memory,
                                                       const Config& config);
  ~Machine();

  GuestMemory& memory() { return *memory_; }
  Bus& pio() { return pio_; }
  Bus& mmio() { return mmio_; }
  InterruptController& interrupts() { return *interrupts_; }
  Doorbells& doorbells() { return *interrupts_; }
  const Kvm& kvm() const { return kvm_; }
  const KvmVm& vm() const { return vm_; }
  // What each vCPU's CPUID answers.
  const std::vector<CpuidTable>& cpuid() const { return cpuid_; }
  // Of a vCPU that nobody has set another frequency for; 0: KVM does not say.
  uint32_t host_tsc_khz() const { return host_tsc_khz_; }
  // Of vCPU `index`'s TSC: the host's, or what load_state() gave it.
  uint32_t tsc_khz(uint32_t index) const { return tsc_khz_[index]; }
  uint32_t cpus() const { return static_cast<uint32_t>(vcpus_.size()); }
  const std::vector<std::unique_ptr<Vcpu>>& vcpus() const { return vcpus_; }

  DirtyLog& dirty_log() { return *dirty_log_; }

  // Sets the boot processor's registers and starts the vCPU threads, parked.
  base::Result<void> boot(const boot::Entry& entry);
  // Instead of boot(), in two steps. The first takes sections "vcpu0" and on, "irqchip" and
  // "clock", refuses what this host cannot give the guest, and starts the threads, parked.
  base::Result<void> load_state(base::SectionReader& reader);
  // The second sets the state, at most once: the guest's clocks go on from here. Guest memory is
  // there by then, or its pager serves it (KVM writes the guest's clock page); devices are restored
  // afterwards. After an error the machine is to be destroyed.
  base::Result<void> set_state(ClockPolicy clock);

  void run();
  // Returns when every vCPU is parked.
  void pause();
  // The user's pause, or stopped; not a hold.
  bool paused() const;

  // Stops every vCPU whatever the user wants, until as many release()s; returns when all are
  // parked, each with the exit in hand completed. A vCPU runs `task`, where there is one, itself
  // and as soon as it is parked; wait_tasks() returns when all have. Nothing is allocated, no
  // thread made. No hold may be left when halt_threads() is called.
  void hold(const VcpuTask* task = nullptr);
  // The same in two steps: the vCPUs are told to leave the guest; all have.
  void begin_hold(const VcpuTask* task = nullptr);
  void wait_held();
  // While held: every vCPU's thread runs `task`, all at the same time.
  void begin_tasks(const VcpuTask& task);
  void wait_tasks();
  void release();

  // Ends the run; the first reason given is the one that counts. Any thread, vCPUs' too.
  void stop(StopReason reason);
  // Readable from the moment there is a stop reason.
  const base::EventFd& stopped() const { return stopped_; }
  std::optional<StopReason> stop_reason() const;

  // Ends the vCPU threads: from then on no device is called by a vCPU.
  void halt_threads();

 private:
  Machine(EmptyVm vm, std::shared_ptr<GuestMemory> memory, base::EventFd stopped);
  base::Result<void> create_vcpus(const Config& config);
  // For each vCPU, from what KVM offers here or from `saved`, checked against it.
  base::Result<void> make_cpuid_tables(const std::vector<CpuidTable>& saved, uint32_t cpus);

  Kvm kvm_;
  KvmVm vm_;
  std::shared_ptr<GuestMemory> memory_;
  std::optional<DirtyLog> dirty_log_;
  std::unique_ptr<KvmInterrupts> interrupts_;
  std::vector<CpuidTable> cpuid_;
  uint32_t host_tsc_khz_ = 0;
  std::vector<uint32_t> tsc_khz_;        // by vCPU
  std::unique_ptr<SavedMachine> saved_;  // from load_state() to set_state()
  // From set_state() to the first run(), where the guest is to find that it was never away.
  std::unique_ptr<SavedMachine> waiting_;
  int64_t waiting_since_ns_ = 0;
  base::Result<void> continue_clock(const SavedMachine& saved);
  Bus pio_;
  Bus mmio_;

  // Tells the vCPUs what follows from the three below; the caller has mutex_. A guest that stood
  // still for long enough to notice is told that it did.
  void direct_vcpus();

  std::mutex control_;        // one run() or pause() at a time; never taken by a vCPU's thread
  mutable std::mutex mutex_;  // guards the following, and the list of vCPUs; never held in a wait
  bool wanted_ = false;       // by the user
  uint32_t holds_ = 0;
  std::optional<StopReason> stop_reason_;
  std::optional<int64_t> standing_since_ns_;  // CLOCK_MONOTONIC
  base::EventFd stopped_;

  std::vector<std::unique_ptr<Vcpu>> vcpus_;  // last: their threads use all of the above
};

}  // namespace vmm
