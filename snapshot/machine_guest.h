// The machine of this process as the capture sees it: vmm::Machine, its devices and its layered
// disks. What happens in the pause, step by step, is here.
//
// Owned with the capture; used on the capturing thread. The machine, the devices and the disks
// outlive it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "devices/platform.h"
#include "snapshot/disk/layered_disk.h"
#include "snapshot/live_guest.h"
#include "snapshot/page_bits.h"
#include "vmm/base/urgency.h"
#include "vmm/machine.h"
#include "vmm/machine_state.h"

namespace snapshot {

class MachineGuest final : public LiveGuest {
 public:
  // `disks` by number; null: one that is not layered, of which there can be no snapshot.
  // `described`: as the manifest has them.
  MachineGuest(vmm::Machine& machine, devices::Platform& platform, std::vector<LayeredDisk*> disks,
               std::vector<Disk> described, std::unique_ptr<vmm::MachineState> state);
  // Makes the state as well.
  static base::Result<std::unique_ptr<MachineGuest>> create(vmm::Machine& machine,
                                                            devices::Platform& platform,
                                                            std::vector<LayeredDisk*> disks,
                                                            std::vector<Disk> described);

  uint64_t ram_pages() const override { return machine_.memory().ram_pages(); }
  const std::byte* page(uint64_t ram_page) const override {
    return machine_.memory().host(ram_page);
  }
  base::Result<void> start_log() override;
  base::Result<void> fetch_dirty(std::span<uint64_t> bits) override;
  base::Result<void> clear_dirty(uint64_t first_page, std::span<const uint64_t> bits) override;
  base::Result<void> fetch_resident(std::span<uint64_t> bits) const override;
  void hold() override { machine_.hold(); }
  void release() override { machine_.release(); }
  base::Result<void> begin_pause(PauseTimes& times) override;
  base::Result<void> peek_dirty(std::span<uint64_t> bits) override;
  base::Result<void> save_state() override;
  void end_pause(bool commit_point, PauseTimes& times) override;
  void encode_state(base::SectionWriter& sections) override;
  base::Result<void> prepare_disks(Branch& branch) override;
  // Could a snapshot hold them?
  base::Result<void> check_disks() const;
  base::Result<void> seal_disks(Commit& commit) override;
  void committed(const std::shared_ptr<const Snapshot>& snapshot) override;
  void failed(const base::Error& error) override;
  // Any thread: requests that waited for space are tried again.
  void resume_disks();
  SnapshotNotes notes() const override;

 private:
  vmm::Machine& machine_;
  devices::Platform& platform_;
  std::vector<LayeredDisk*> disks_;
  std::vector<Disk> described_;
  base::Urgency urgency_;  // of the vCPUs' threads
  PageBits scratch_;       // what the log gives, before it is ORed to what is there
  // Written in the pause, kept from one to the next.
  std::unique_ptr<vmm::MachineState> state_;
  base::SectionWriter device_state_;
};

}  // namespace snapshot
