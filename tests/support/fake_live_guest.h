// A guest for tests of the capture: pages of plain memory, a thread that writes them, a dirty log
// with KVM's promise (a write after the clear sets the bit again, before it is seen).
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <random>
#include <span>
#include <thread>
#include <vector>

#include "snapshot/live_guest.h"
#include "snapshot/page_bits.h"
#include "snapshot/store/store.h"
#include "snapshot/types.h"

namespace snapshot_test {

class FakeLiveGuest : public snapshot::LiveGuest {
 public:
  explicit FakeLiveGuest(uint64_t pages);
  ~FakeLiveGuest() override;

  // Starts a thread that writes `working_set` pages, from page 0 on, as fast as it can, or one
  // write each `pause_us`.
  void start_writer(uint64_t working_set, unsigned pause_us, uint32_t seed);
  void stop_writer();
  // One write from outside, as a vCPU makes it.
  void write(uint64_t page, uint64_t word, uint64_t value);
  void fill(uint64_t page, std::byte value);
  // Every word of a page, all at once.
  void write_page(uint64_t page, uint64_t value);
  // A write by a device: the mark comes after the data.
  void device_write(uint64_t page, uint64_t value);
  void device_write_page(uint64_t page, uint64_t value);
  std::vector<std::byte> memory() const { return memory_; }
  // As a machine that is restored lazily: nothing is in memory, which holds rubbish, until it
  // arrives.
  void take_memory_away();
  void arrive(uint64_t page, std::span<const std::byte, snapshot::kPageBytes> content);
  // Called after the next look at what is resident.
  std::function<void()> after_fetch_resident;
  // Called before each look at the log outside the pause.
  std::function<void()> before_fetch_dirty;
  // Called for each page that is looked at.
  std::function<void()> before_page;

  uint64_t ram_pages() const override { return pages_; }
  const std::byte* page(uint64_t ram_page) const override {
    if (before_page) before_page();
    return memory_.data() + ram_page * snapshot::kPageBytes;
  }
  base::Result<void> start_log() override;
  base::Result<void> fetch_dirty(std::span<uint64_t> bits) override;
  base::Result<void> clear_dirty(uint64_t first_page, std::span<const uint64_t> bits) override;
  base::Result<void> fetch_resident(std::span<uint64_t> bits) const override;
  void hold() override;
  void release() override;
  base::Result<void> begin_pause(PauseTimes& times) override;
  base::Result<void> peek_dirty(std::span<uint64_t> bits) override;
  base::Result<void> save_state() override;
  void end_pause(bool commit_point, PauseTimes& times) override;
  void encode_state(base::SectionWriter& sections) override;
  base::Result<void> prepare_disks(snapshot::Branch&) override { return {}; }
  base::Result<void> seal_disks(snapshot::Commit&) override { return {}; }
  void committed(const std::shared_ptr<const snapshot::Snapshot>&) override {
    ++commits;
    urgent_elsewhere |= is_urgent();
  }
  void failed(const base::Error&) override { ++failures; }
  snapshot::SnapshotNotes notes() const override;

  uint64_t writes() const { return writes_; }
  // Memory at the instant of the last pause that was a commit point.
  std::vector<std::byte> at_pause;
  unsigned pauses = 0, holds = 0, commits = 0, failures = 0;
  // Of the pauses and holds, those in which the capturing thread was; and whether it was elsewhere.
  unsigned urgent_pauses = 0, urgent_holds = 0;
  bool urgent_elsewhere = false;
  // Taken from the log in one hold, at most.
  uint64_t most_in_hold = 0;

 private:
  static bool is_urgent();
  void write_locked(uint64_t page, uint64_t word, uint64_t value);
  const uint64_t pages_;
  std::vector<std::byte> memory_;
  std::mutex guest_;  // held while the guest runs a write, and by whoever holds the guest
  std::mutex log_;
  bool logging_ = false;
  snapshot::PageBits dirty_, host_;
  snapshot::PageBits absent_;
  bool held_ = false;
  uint64_t in_hold_ = 0;
  uint64_t writes_ = 0;
  uint64_t writes_at_pause_ = 0;
  std::thread writer_;
  std::atomic<bool> stop_ = false;
};

}  // namespace snapshot_test
