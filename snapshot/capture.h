// The live algorithm: a snapshot of a machine that goes on running. In rounds it copies what the
// guest has written, while the guest writes on; when what is left is small enough, it stops the
// guest for the last copies and the state, lets it go, and commits.
//
//   round:  read the log → for each piece of 512 pages: clear, copy to the pool, hash, drop what is
//           unchanged, write what leaves the pool
//   pause:  vCPUs out → devices between two requests → read the log, copy the residue, state,
//           switch disk layers → run
//   after:  hash, write, wait for the disks' earlier writes, commit, and only now forget the epoch
//
// The order for each page is always: clear its dirty bit, copy it, hash and write the copy.
//
// One for each machine, for as long as it runs; one take() at a time, on any one thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "snapshot/live_guest.h"
#include "snapshot/page_bits.h"
#include "snapshot/staging.h"
#include "snapshot/store/store.h"
#include "vmm/base/result.h"

namespace snapshot {

class Capture {
 public:
  // What to do with a guest that writes faster than rounds copy.
  enum class OnHot { kThrottle, kStop };
  struct Options {
    bool full = false;
    uint64_t max_pause_ns = 300'000;
    OnHot on_hot = OnHot::kThrottle;
    // A throttled guest whose rounds leave no less for so long writes faster than the disk does,
    // however short the time it is given: it is stopped for what is left.
    uint64_t patience_ns = 10'000'000'000;
    uint64_t staging_bytes = 0;  // 0: a quarter of the RAM, 32 to 64 MiB, to 2 GiB with kStop
    // The guest does not run again after the pause, unless the snapshot fails: it is left held.
    bool stop = false;
    std::string config = {};  // of the machine, for the manifest
    // Tests: called at the instant the snapshot stands for.
    std::function<void()> in_pause = {};
  };
  // May be read from any thread while take() runs.
  struct Progress {
    std::atomic<uint64_t> round = 0, pages_left = 0, copied = 0, written_bytes = 0;
    std::atomic<bool> committing = false;
    std::atomic<bool> cancel = false;  // set by whoever wants it to end
  };
  struct Outcome {
    Id id;
    bool full = false;
    LiveGuest::PauseTimes pause;
    uint64_t rounds = 0;            // before the pause
    uint64_t residue = 0;           // pages copied in the pause
    uint64_t longest_clear_ns = 0;  // of the log: what a writing guest may feel outside the pause
    uint64_t slices = 0, held_ns = 0;  // vCPUs held to let the rounds converge
    uint64_t longest_hold_ns = 0;      // of them: one slice
    uint64_t total_ns = 0;
    uint64_t staging_bytes = 0;
    Staging::Counts pages;
    uint64_t bytes = 0;  // committed, of all files
  };

  Capture(LiveGuest& guest, Store& store, Branch& branch);

  // Takes a snapshot. After an error, or a cancel, guest and store are as if it had never begun,
  // and the next one has what this one should have had.
  base::Result<Outcome> take(const Options& options, Progress& progress);
  // Gives the staging pool's memory back, which a snapshot leaves to the next one. Not while one is
  // taken.
  void release_pool() { pool_ = {}; }

 private:
  struct Run;
  LiveGuest& guest_;
  Store& store_;
  Branch& branch_;
  // Pages written since the last commit as far as the log was cleared of them: what a failed
  // snapshot leaves to the next one.
  PageBits epoch_;
  // A snapshot maps and unmaps nothing that it can keep for the next one: where the host of this
  // machine shadows its page tables, it may stop a vCPU for milliseconds for each of that.
  PageBits pending_, last_look_;
  StagingPool pool_;
  uint64_t last_fixed_ns_ = 150'000;  // of the last pause: what was not copying
  double copy_ns_ = 700;              // a page's copy, as measured in rounds
  double hold_ns_ = 50'000;           // of a slice: what is not copying
};

}  // namespace snapshot
