// A machine for tests of the control API: remembers what it was asked.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <string>

#include "cli/control_target.h"

namespace test {

class FakeTarget : public cli::ControlTarget {
 public:
  FakeTarget() {
    options_.kernel = "/boot/vmlinuz";
    options_.name = "job1";
    options_.cpus = 2;
  }

  const cli::RunOptions& options() const override { return options_; }
  bool paused() const override { return paused_; }
  base::Result<void> pause() override {
    if (!trouble_.empty()) return base::fail(trouble_);
    paused_ = true;
    return {};
  }
  base::Result<void> resume() override {
    paused_ = false;
    return {};
  }
  void power_button() override { asked_ += "power;"; }
  void stop() override {
    asked_ += "stop;";
    if (on_stop_) on_stop_();
  }
  nlohmann::json stats() const override { return {{"disk0", {{"reads", 3}}}}; }
  std::optional<cli::BalloonStatus> balloon() const override { return balloon_; }
  base::Result<void> set_balloon(uint64_t bytes) override {
    balloon_->target_bytes = bytes;
    return {};
  }
  base::Result<uint64_t> begin_snapshot(
      const snapshot::SnapshotService::Request& request) override {
    if (!trouble_.empty()) return base::fail(trouble_);
    request_ = request;
    return ++snapshots_.number;
  }
  snapshot::SnapshotService::Status snapshot_status() override { return snapshots_; }
  void cancel_snapshot() override { asked_ += "cancel;"; }

  cli::RunOptions options_;
  bool paused_ = false;
  std::string trouble_;  // what pause() fails with
  std::string asked_;
  std::function<void()> on_stop_;
  std::optional<cli::BalloonStatus> balloon_;
  snapshot::SnapshotService::Request request_;
  snapshot::SnapshotService::Status snapshots_;
};

}  // namespace test
