// What a snapshot has of a machine beside its memory, disks and devices: the sections "cpuid",
// "vcpu0" to "vcpuN", "irqchip" and "clock". Made ahead of a pause, so that nothing is allocated in
// it; used for one save after the other.
//
//   prepare() … machine.hold(&state.read_vcpu()) → read_vm() → machine.wait_tasks() → outcome() →
//   machine.release() → encode()
//
// Owned by who takes the snapshot, and does not outlive the machine; one thread besides the vCPUs'
// in their tasks. Machine::load_state() is the way back.
#pragma once

#include <memory>
#include <vector>

#include "vmm/base/result.h"
#include "vmm/base/sections.h"
#include "vmm/cpu_features.h"
#include "vmm/vcpu.h"
#include "vmm/vcpu_state.h"
#include "vmm/vm_state.h"

namespace vmm {

class Machine;

class MachineState {
 public:
  // Holds the machine for a moment where it runs.
  static base::Result<std::unique_ptr<MachineState>> prepare(Machine& machine);

  // For the vCPUs' threads while the machine is held. Devices have injected their interrupts by
  // then.
  const VcpuTask& read_vcpu() const { return read_vcpu_; }
  // The rest, while held; the tasks may run meanwhile.
  base::Result<void> read_vm();
  // After the tasks: whether they read everything.
  base::Result<void> outcome() const;

  void encode(base::SectionWriter& writer) const;

  const std::vector<VcpuState>& vcpus() const { return vcpus_; }
  const IrqchipState& irqchip() const { return irqchip_; }
  const ClockState& clock() const { return clock_; }

 private:
  explicit MachineState(Machine& machine) : machine_(machine) {}

  Machine& machine_;
  VcpuTask read_vcpu_;
  std::vector<VcpuState> vcpus_;
  std::vector<base::Result<void>> outcomes_;  // of the vCPUs' tasks
  IrqchipState irqchip_;
  ClockState clock_;
};

// The same for a restore: decoded and checked, before anything is set.
struct SavedMachine {
  std::vector<VcpuState> vcpus;
  IrqchipState irqchip;
  ClockState clock;

  static base::Result<SavedMachine> decode(base::SectionReader& reader, uint32_t cpus,
                                           size_t xsave_bytes);
};

}  // namespace vmm
