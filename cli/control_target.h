// What the control socket may ask of a running machine. `run` implements it; the server calls it on
// its own thread, one call at a time, from start() until the server is destroyed.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "cli/run_options.h"
#include "snapshot/service.h"
#include "vmm/base/result.h"

namespace cli {

struct BalloonStatus {
  uint64_t target_bytes = 0;
  uint64_t actual_bytes = 0;
  // What the guest's driver reports (virtio 1.2, 5.5.6.3), by Firecracker's names: swap_in,
  // swap_out, major_faults, minor_faults, free_memory, total_memory, available_memory, disk_caches,
  // … Empty where it has not reported.
  std::map<std::string, uint64_t> guest;
};

class ControlTarget {
 public:
  virtual ~ControlTarget() = default;

  // What the machine was made from, with the name it got.
  virtual const RunOptions& options() const = 0;
  virtual bool paused() const = 0;
  // Return when the vCPUs stand, or run. Pausing a paused machine is no error.
  virtual base::Result<void> pause() = 0;
  virtual base::Result<void> resume() = 0;
  virtual void power_button() = 0;
  // Ends the machine at once. The process may begin to end before this returns.
  virtual void stop() = 0;
  // An object of objects of numbers: {"vcpus": {"exits": 17}, "disk0": {"reads": 3}, …}.
  virtual nlohmann::json stats() const = 0;
  // None where the machine has no balloon.
  virtual std::optional<BalloonStatus> balloon() const = 0;
  virtual base::Result<void> set_balloon(uint64_t target_bytes) = 0;

  // Begins a snapshot and returns its number; snapshot_status() tells how it goes on and ends.
  virtual base::Result<uint64_t> begin_snapshot(
      const snapshot::SnapshotService::Request& request) = 0;
  virtual snapshot::SnapshotService::Status snapshot_status() = 0;
  virtual void cancel_snapshot() = 0;
};

}  // namespace cli
