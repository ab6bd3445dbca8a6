#include "snapshot/machine_guest.h"

#include <algorithm>
#include <chrono>
#include <thread>

#include "snapshot/disk/committed_blocks.h"
#include "snapshot/resident_pages.h"
#include "snapshot/store/store.h"

namespace snapshot {

using base::fail;
using base::Result;

namespace {

// A disk write from before the pause that takes longer than this is a broken disk.
constexpr auto kDiskPatience = std::chrono::minutes(10);

uint64_t now_ns() {
  return static_cast<uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
}

}  // namespace

Result<std::unique_ptr<MachineGuest>> MachineGuest::create(vmm::Machine& machine,
                                                           devices::Platform& platform,
                                                           std::vector<LayeredDisk*> disks,
                                                           std::vector<Disk> described) {
  TRY_ASSIGN(auto state, vmm::MachineState::prepare(machine));
  return std::make_unique<MachineGuest>(machine, platform, std::move(disks), std::move(described),
                                        std::move(state));
}

MachineGuest::MachineGuest(vmm::Machine& machine, devices::Platform& platform,
                           std::vector<LayeredDisk*> disks, std::vector<Disk> described,
                           std::unique_ptr<vmm::MachineState> state)
    : machine_(machine),
      platform_(platform),
      disks_(std::move(disks)),
      described_(std::move(described)),
      urgency_(machine.cpus()),
      scratch_(make_page_bits(machine.memory().ram_pages())),
      state_(std::move(state)) {}

Result<void> MachineGuest::start_log() {
  if (machine_.dirty_log().started()) return {};
  TRY(machine_.dirty_log().start());
  // Of what is in it now, the pages without memory go: nobody has written them. One that is written
  // meanwhile has memory when the capture looks, after this.
  std::ranges::fill(scratch_, 0);
  TRY(fetch_resident(scratch_));
  for (uint64_t& word : scratch_) word = ~word;
  constexpr size_t kPieceWords = vmm::DirtyLog::kMostPages / 64;
  for (size_t word = 0; word < scratch_.size(); word += kPieceWords) {
    auto piece = std::span(scratch_).subspan(word, std::min(kPieceWords, scratch_.size() - word));
    if (std::ranges::all_of(piece, [](uint64_t bits) { return bits == 0; })) continue;
    TRY(clear_dirty(word * 64, piece));
  }
  return {};
}

Result<void> MachineGuest::fetch_dirty(std::span<uint64_t> bits) {
  auto fetched = machine_.dirty_log().fetch(scratch_);
  // Also where it failed: marks of the host that were taken by then are nowhere else.
  add_bits(bits, scratch_);
  return fetched;
}

Result<void> MachineGuest::peek_dirty(std::span<uint64_t> bits) {
  return machine_.dirty_log().peek(bits);
}

Result<void> MachineGuest::clear_dirty(uint64_t first_page, std::span<const uint64_t> bits) {
  uint64_t count = std::min<uint64_t>(bits.size() * 64, ram_pages() - first_page);
  return machine_.dirty_log().clear(first_page, count, bits);
}

Result<void> MachineGuest::fetch_resident(std::span<uint64_t> bits) const {
  if (machine_.memory().is_copy()) {
    // A page that nobody touched has content all the same.
    for (uint64_t page = 0; page < ram_pages(); ++page) bits[page / 64] |= 1ull << (page % 64);
    return {};
  }
  uint64_t page = 0;
  for (const vmm::GuestMemory::Region& region : machine_.memory().regions()) {
    // Regions begin at multiples of 64 pages.
    TRY(find_resident(region.host, region.size, bits.subspan(page / 64)));
    page += region.size / kPageBytes;
  }
  return {};
}

Result<void> MachineGuest::begin_pause(PauseTimes& times) {
  uint64_t start = now_ns();
  // Nothing new begins on the devices' threads, so that freezing them has nothing to wait for.
  platform_.hold();
  machine_.begin_hold();
  // Not before they were told to leave the guest.
  for (const auto& vcpu : machine_.vcpus()) urgency_.raise(vcpu->thread_id());
  machine_.wait_held();
  uint64_t stopped = now_ns();
  platform_.freeze();
  // Only now: an interrupt that a device raised until here is in the local APIC that is read.
  machine_.begin_tasks(state_->read_vcpu());
  times.stop = stopped - start;
  times.barrier = now_ns() - stopped;
  return {};
}

Result<void> MachineGuest::save_state() {
  device_state_.clear();
  platform_.save(device_state_);
  auto read = state_->read_vm();
  machine_.wait_tasks();
  TRY(read);
  return state_->outcome();
}

void MachineGuest::end_pause(bool commit_point, PauseTimes& times) {
  uint64_t start = now_ns();
  // Where the pause was given up before save_state(), the vCPUs may still be reading.
  machine_.wait_tasks();
  if (commit_point) {
    for (LayeredDisk* disk : disks_) {
      if (!disk->read_only()) disk->freeze();
    }
  }
  platform_.thaw();
  machine_.release();
  times.run = now_ns() - start;
  urgency_.lower();
}

void MachineGuest::encode_state(base::SectionWriter& sections) {
  state_->encode(sections);
  for (size_t i = 0; i < device_state_.count(); ++i) {
    sections.begin(device_state_.tag(i), device_state_.version(i)).bytes(device_state_.data(i));
  }
}

// --- disks ---

Result<void> MachineGuest::check_disks() const {
  if (std::ranges::find(disks_, nullptr) == disks_.end()) return {};
  return fail(
      "the machine's disks are not layered, so no snapshot can hold them: machines with disks "
      "are to be started with --store DIR");
}

Result<void> MachineGuest::prepare_disks(Branch& branch) {
  TRY(check_disks());
  for (size_t i = 0; i < disks_.size(); ++i) {
    if (disks_[i]->read_only()) continue;
    TRY_ASSIGN(bool lacks_layer, disks_[i]->lacks_layer());
    if (!lacks_layer) continue;
    TRY_ASSIGN(LayerFiles next, branch.create_layer(static_cast<uint32_t>(i)));
    TRY(disks_[i]->prepare_freeze(std::move(next)));
  }
  return {};
}

Result<void> MachineGuest::seal_disks(Commit& commit) {
  for (size_t i = 0; i < disks_.size(); ++i) {
    TRY_ASSIGN(bool complete, disks_[i]->wait_frozen(kDiskPatience));
    if (!complete) return fail(described_[i].name + ": its writes do not come to an end");
    TRY(disks_[i]->add_to(commit, static_cast<uint32_t>(i)));
  }
  return {};
}

void MachineGuest::committed(const std::shared_ptr<const Snapshot>& snapshot) {
  for (size_t i = 0; i < disks_.size(); ++i) {
    disks_[i]->committed(committed_blocks(snapshot, disk_space(static_cast<uint32_t>(i))));
  }
}

void MachineGuest::failed(const base::Error& error) {
  for (LayeredDisk* disk : disks_) disk->commit_failed(error);
}

void MachineGuest::resume_disks() {
  for (LayeredDisk* disk : disks_) {
    if (disk != nullptr) disk->resume();
  }
}

SnapshotNotes MachineGuest::notes() const {
  SnapshotNotes notes;
  for (const vmm::GuestMemory::Region& region : machine_.memory().regions()) {
    notes.memory.push_back({region.start.value, region.size});
  }
  notes.disks = described_;
  for (size_t i = 0; i < disks_.size(); ++i) {
    auto identity = disks_[i]->base_identity();
    if (!identity) continue;
    auto bytes = encode_base(*identity);
    notes.disks[i].base.assign(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }
  return notes;
}

}  // namespace snapshot
