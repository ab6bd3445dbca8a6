// The machine of this process, as the control socket sees it. Made by run_machine between the
// platform and the control server, used on the server's thread.
#pragma once

#include "cli/control_target.h"
#include "devices/platform.h"
#include "vmm/machine.h"

namespace cli {

class RunningMachine : public ControlTarget {
 public:
  // All outlive this object. `options.name` is the name the machine got.
  RunningMachine(const RunOptions& options, vmm::Machine& machine, devices::Platform& platform,
                 snapshot::SnapshotService& snapshots)
      : options_(options), machine_(machine), platform_(platform), snapshots_(snapshots) {}

  const RunOptions& options() const override { return options_; }
  bool paused() const override { return machine_.paused(); }
  base::Result<void> pause() override;
  base::Result<void> resume() override;
  void power_button() override {
    snapshots_.shutdown_asked();
    platform_.press_power_button();
  }
  void stop() override;
  nlohmann::json stats() const override;
  std::optional<BalloonStatus> balloon() const override;
  base::Result<void> set_balloon(uint64_t target_bytes) override;
  base::Result<uint64_t> begin_snapshot(const snapshot::SnapshotService::Request& request) override;
  snapshot::SnapshotService::Status snapshot_status() override { return snapshots_.status(); }
  void cancel_snapshot() override { snapshots_.cancel(); }

 private:
  const RunOptions& options_;
  vmm::Machine& machine_;
  devices::Platform& platform_;
  snapshot::SnapshotService& snapshots_;
};

}  // namespace cli
