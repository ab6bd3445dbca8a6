// A running machine as the capture algorithm (capture.h) sees it: pages, a dirty log, one pause.
// The real one stands on KVM and the devices (machine_guest.h); the tests' is an array of pages
// with a thread that writes them.
//
// Used by the capturing thread only. RAM pages are numbered as kRamSpace says (types.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "snapshot/types.h"
#include "vmm/base/result.h"
#include "vmm/base/sections.h"

namespace snapshot {

class Branch;
class Commit;
class Snapshot;
struct SnapshotNotes;

class LiveGuest {
 public:
  // Nanoseconds of the pause, step by step.
  struct PauseTimes {
    uint64_t stop = 0;     // from the first kick until every vCPU is out of the guest
    uint64_t barrier = 0;  // until every device is between two requests
    uint64_t log = 0;      // reading the dirty log
    uint64_t stage = 0;    // copying what it names
    uint64_t state = 0;    // waiting for the vCPUs' registers, reading chips, clock and devices
    uint64_t run = 0;      // until the vCPUs were told to run
    uint64_t total() const { return stop + barrier + log + stage + state + run; }
  };

  virtual ~LiveGuest() = default;
  virtual uint64_t ram_pages() const = 0;
  // 4096 bytes that may change at any time.
  virtual const std::byte* page(uint64_t ram_page) const = 0;

  // Before anything else of a snapshot. From the first call on the log has every page that is
  // written, and at first every one that has been.
  virtual base::Result<void> start_log() = 0;
  // ORs the pages written since they were last cleared into `bits`, one bit a page, and takes the
  // marks of host-side writes with them. A mark is set after its data is there: whoever copies a
  // page after this call has what the mark stands for.
  virtual base::Result<void> fetch_dirty(std::span<uint64_t> bits) = 0;
  // Clears the log for the pages of `bits`, of which bit 0 is `first_page`, a multiple of 64. At
  // most 512 pages. To be called before they are copied.
  virtual base::Result<void> clear_dirty(uint64_t first_page, std::span<const uint64_t> bits) = 0;
  // ORs the pages that memory exists for into `bits`. Others were never written since the machine
  // began: they are zero, or in the snapshot it was restored from.
  virtual base::Result<void> fetch_resident(std::span<uint64_t> bits) const = 0;

  // Holds the vCPUs out of the guest, without devices: for a guest that writes too fast.
  virtual void hold() = 0;
  virtual void release() = 0;

  // The pause. begin: vCPUs out, devices between two requests. peek_dirty: what fetch_dirty() would
  // add, in place of what `bits` held, and all of it stays marked for the next snapshot too. save:
  // reads all state into memory kept for it. end: disk layers are switched where `commit_point`,
  // then everything runs again.
  virtual base::Result<void> begin_pause(PauseTimes& times) = 0;
  virtual base::Result<void> peek_dirty(std::span<uint64_t> bits) = 0;
  virtual base::Result<void> save_state() = 0;
  virtual void end_pause(bool commit_point, PauseTimes& times) = 0;

  // After the pause: what save_state() read, as sections.
  virtual void encode_state(base::SectionWriter& sections) = 0;

  // Disks. Before the pause: the layers that take the writes after it are made. After it: waits for
  // the writes from before it, and adds the layers they went to. At the end: the snapshot is real.
  virtual base::Result<void> prepare_disks(Branch& branch) = 0;
  virtual base::Result<void> seal_disks(Commit& commit) = 0;
  virtual void committed(const std::shared_ptr<const Snapshot>& snapshot) = 0;
  // After seal_disks() was called: there will be no such snapshot.
  virtual void failed(const base::Error& error) = 0;
  // Memory regions and disks, for the manifest.
  virtual SnapshotNotes notes() const = 0;
};

}  // namespace snapshot
