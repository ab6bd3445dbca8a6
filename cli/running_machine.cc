#include "cli/running_machine.h"

#include <array>
#include <nlohmann/json.hpp>
#include <string>

namespace cli {
namespace {

// virtio 1.2, 5.5.6.4: the name of a tag is its index here.
constexpr std::array kGuestStatistics{
    "swap_in",      "swap_out",         "major_faults", "minor_faults",        "free_memory",
    "total_memory", "available_memory", "disk_caches",  "hugetlb_allocations", "hugetlb_failures"};

}  // namespace

base::Result<void> RunningMachine::pause() {
  machine_.pause();
  return {};
}

base::Result<void> RunningMachine::resume() {
  snapshots_.resume_disks();
  machine_.run();
  return {};
}

base::Result<uint64_t> RunningMachine::begin_snapshot(
    const snapshot::SnapshotService::Request& asked) {
  snapshot::SnapshotService::Request request = asked;
  request.result_wanted = true;
  return snapshots_.request(request);
}

void RunningMachine::stop() { machine_.stop({vmm::StopReason::Kind::kRequested, 0, ""}); }

nlohmann::json RunningMachine::stats() const {
  nlohmann::json all = nlohmann::json::object();
  for (const auto& vcpu : machine_.vcpus()) {
    all["vcpu" + std::to_string(all.size())]["exits"] = vcpu->exits();
  }
  for (const devices::DeviceStatistics& device : platform_.statistics()) {
    nlohmann::json& counters = all[device.device] = nlohmann::json::object();
    for (const auto& [name, count] : device.counters) counters[name] = count;
  }
  return all;
}

std::optional<BalloonStatus> RunningMachine::balloon() const {
  const virtio::Balloon* balloon = platform_.balloon();
  if (balloon == nullptr) return std::nullopt;
  BalloonStatus status;
  status.target_bytes = balloon->target_mib() << 20;
  status.actual_bytes = balloon->actual_mib() << 20;
  const virtio::BalloonStatistics guest = platform_.balloon_statistics();
  for (size_t tag = 0; tag < kGuestStatistics.size(); ++tag) {
    if (guest[tag]) status.guest[kGuestStatistics[tag]] = *guest[tag];
  }
  return status;
}

base::Result<void> RunningMachine::set_balloon(uint64_t target_bytes) {
  return platform_.set_balloon(target_bytes >> 20);
}

}  // namespace cli
