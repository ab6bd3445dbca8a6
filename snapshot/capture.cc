#include "snapshot/capture.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <functional>

#include "snapshot/convergence.h"
#include "vmm/base/urgency.h"

namespace snapshot {

using base::fail;
using base::Result;

namespace {

constexpr uint64_t kPieceWords = 8;  // 512 pages: clearing more at once stalls a writing guest
constexpr uint64_t kSmallestResidue = 16;
constexpr uint64_t kLargestResidue = 4096;
constexpr uint64_t kMiB = 1 << 20;

uint64_t now_ns() {
  return static_cast<uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
}

// Takes a new measurement into a mean; one that was disturbed does not count as more than `most`.
void smooth(double& mean, double measured, double most) {
  mean += (std::clamp(measured, 100.0, most) - mean) / 16;
}

// A pool that is gone round often stays in the caches, and is less memory to get from the host.
// Only a guest that is stopped for all that is left waits for what does not fit in.
uint64_t pool_bytes(const Capture::Options& options, uint64_t ram_bytes) {
  uint64_t most = options.on_hot == Capture::OnHot::kStop ? 2048 * kMiB : 64 * kMiB;
  uint64_t wanted = options.staging_bytes;
  if (wanted == 0) wanted = std::clamp(ram_bytes / 4, 32 * kMiB, most);
  return std::max(wanted, Staging::kSmallestPool * kPageBytes);
}

}  // namespace

// One take(): its files, its staging area, its counters.
struct Capture::Run {
  Capture& capture;
  const Options& options;
  Progress& progress;
  Outcome outcome = {};
  std::shared_ptr<const Snapshot> parent = nullptr;
  std::unique_ptr<Commit> commit = nullptr;
  Slot pack = kSlotZero;
  std::unique_ptr<Staging> staging = nullptr;
  PageBits& pending =
      capture.pending_;  // to be copied: read from the log, or left by an earlier one
  PageBits absent = {};  // of a full one: not in memory when it began
  PageBits& last_look = capture.last_look_;  // at the log, in the pause, and `pending` with it
  std::vector<uint64_t> residue = {};        // its pages
  bool throttled = false;
  bool left_held = false;
  LiveGuest::PauseTimes times = {};

  LiveGuest& guest() const { return capture.guest_; }

  Result<void> begin();
  Result<void> look_at_log();
  Result<void> copy_absent_pages();
  Result<void> rounds();
  Result<void> copy_round();
  Result<void> copy_piece(uint64_t first_word, std::span<const uint64_t> piece);
  Result<void> copy_slice(uint64_t first_word, std::span<const uint64_t> slice);
  Result<void> copy_page(uint64_t page, const std::byte* from);
  // False where more was dirty than expected: the guest runs again, and so do the rounds.
  Result<bool> pause(bool at_any_price);
  Result<void> finish();
  // Pages that can be copied within the pause budget beside something that takes `fixed_ns`.
  uint64_t pages_in_budget(uint64_t fixed_ns, uint64_t most) const;
  uint64_t residue_limit() const;
  // How many pages the pause takes before it is given up, or what the pool has for them.
  uint64_t room_in_pause(bool at_any_price = false) const;
  // What can be copied without a wait for the disk, whatever the pool has to write.
  uint64_t room_in_pool() const { return outcome.staging_bytes / kPageBytes / 2; }
  Result<void> check_cancel() const {
    if (progress.cancel)
      return fail("the snapshot was cancelled; the guest and the store are as before");
    return {};
  }
};

Capture::Capture(LiveGuest& guest, Store& store, Branch& branch)
    : guest_(guest),
      store_(store),
      branch_(branch),
      epoch_(make_page_bits(guest.ram_pages())),
      pending_(make_page_bits(guest.ram_pages())),
      last_look_(make_page_bits(guest.ram_pages())) {}

Result<Capture::Outcome> Capture::take(const Options& options, Progress& progress) {
  Run run{*this, options, progress};
  uint64_t start = now_ns();
  TRY(run.begin());
  TRY(run.rounds());
  if (auto finished = run.finish(); !finished) {
    guest_.failed(finished.error());
    if (run.left_held) guest_.release();
    return std::unexpected(finished.error());
  }
  run.outcome.total_ns = now_ns() - start;
  return run.outcome;
}

Result<void> Capture::Run::begin() {
  parent = capture.branch_.parent();
  outcome.full = options.full || !parent;
  TRY_ASSIGN(commit, capture.branch_.begin(outcome.full ? Kind::kFull : Kind::kIncremental));
  outcome.id = commit->id();

  TRY(guest().start_log());
  uint64_t ram_pages = guest().ram_pages();
  pending.make_zero();
  add_bits(pending, capture.epoch_);
  if (outcome.full) {
    // Looked at once: what comes in meanwhile is in one of the two sets.
    PageBits resident = make_page_bits(ram_pages);
    TRY(guest().fetch_resident(resident));
    absent = make_page_bits(ram_pages);
    std::ranges::transform(resident, absent.begin(), std::bit_not());
    add_bits(pending, resident);
  }
  TRY(look_at_log());
  last_look.make_zero();
  last_look.touch();  // no page of it is to be missing in the pause

  // Space is taken now: a full disk is to be met here, before anything was done.
  TRY_ASSIGN(pack, commit->create_pack((count_bits(pending) + 1) * kPageBytes));
  TRY(guest().prepare_disks(capture.branch_));

  const uint64_t pool_pages = pool_bytes(options, ram_pages * kPageBytes) / kPageBytes;
  TRY_ASSIGN(auto queue, capture.store_.storage().make_queue(32));
  Staging::Parent entry_of = [this](uint64_t page) -> Result<PageEntry> {
    // A full snapshot stands for itself: whatever is not zero is in it.
    if (outcome.full) return PageEntry{.page = page};
    return parent->find(kRamSpace, page);
  };
  TRY_ASSIGN(staging, Staging::create(
                          {.ram_pages = ram_pages, .pool_pages = pool_pages}, capture.pool_,
                          [this](const std::byte* page) {
                            return capture.store_.hash(std::span(page, kPageBytes));
                          },
                          std::move(entry_of), std::move(queue)));
  outcome.staging_bytes = staging->pool_bytes();
  return {};
}

// A full snapshot of a machine that is still being restored: what is not in its memory yet is
// copied from the parent, before any round. A page that comes and is written meanwhile is in the
// log, and its newer copy replaces this one.
Result<void> Capture::Run::copy_absent_pages() {
  if (!outcome.full || !parent) return {};
  alignas(64) std::array<std::byte, kPageBytes> buffer;
  for (uint64_t page = 0; page < guest().ram_pages(); ++page) {
    if ((absent[page / 64] >> (page % 64) & 1) == 0) continue;
    TRY_ASSIGN(PageEntry entry, parent->find(kRamSpace, page));
    if (entry.slot == kSlotZero) continue;
    TRY(check_cancel());
    TRY(parent->read_page(kRamSpace, page, buffer));
    staging->reserve(1);
    TRY(copy_page(page, buffer.data()));
    TRY(staging->settle());
    TRY(staging->relieve(commit->file(pack), 1));
  }
  return {};
}

uint64_t Capture::Run::pages_in_budget(uint64_t fixed_ns, uint64_t most) const {
  uint64_t fixed = std::min(fixed_ns, options.max_pause_ns / 4 * 3);
  double pages = static_cast<double>(options.max_pause_ns - fixed) / capture.copy_ns_;
  return std::clamp(static_cast<uint64_t>(pages), kSmallestResidue, most);
}

uint64_t Capture::Run::residue_limit() const {
  return pages_in_budget(capture.last_fixed_ns_, kLargestResidue);
}

uint64_t Capture::Run::room_in_pause(bool at_any_price) const {
  uint64_t limit = residue_limit();
  return std::min(at_any_price ? guest().ram_pages() : 4 * limit, std::max(room_in_pool(), limit));
}

Result<void> Capture::Run::rounds() {
  TRY(copy_absent_pages());
  Convergence convergence({.full = outcome.full,
                           .stop_hot = options.on_hot == OnHot::kStop,
                           .patience_ns = options.patience_ns});
  for (;;) {
    TRY(check_cancel());
    uint64_t left = count_bits(pending);
    progress.pages_left = left;
    auto next = convergence.next(left, residue_limit(), now_ns());
    if (next == Convergence::Next::kPause || next == Convergence::Next::kPauseAtAnyPrice) {
      TRY_ASSIGN(bool done, pause(next == Convergence::Next::kPauseAtAnyPrice));
      if (done) return {};
    } else {
      throttled = next == Convergence::Next::kThrottledRound;
      TRY(copy_round());
    }
    // Where a pause may be next, the disk takes its time before the look that decides for it.
    if (const uint64_t room = room_in_pause(); !throttled && left <= room)
      TRY(staging->relieve(commit->file(pack), std::min(room, room_in_pool())));
    TRY(look_at_log());
  }
}

Result<void> Capture::Run::look_at_log() {
  // Of one that fails too: what it took out of the log by then is here and nowhere else.
  auto fetched = guest().fetch_dirty(pending);
  add_bits(capture.epoch_, pending);
  return fetched;
}

Result<void> Capture::Run::copy_round() {
  ++outcome.rounds;
  progress.round = outcome.rounds;
  for (uint64_t word = 0; word < pending.size(); word += kPieceWords) {
    auto piece = std::span(pending).subspan(word, std::min(kPieceWords, pending.size() - word));
    if (std::ranges::all_of(piece, [](uint64_t bits) { return bits == 0; })) continue;
    TRY(check_cancel());
    TRY(copy_piece(word, piece));
    std::ranges::fill(piece, 0);
    progress.copied = staging->counts().copied;
    progress.written_bytes = staging->counts().written * kPageBytes;
  }
  return {};
}

Result<void> Capture::Run::copy_piece(uint64_t first_word, std::span<const uint64_t> piece) {
  staging->reserve(kPieceWords * 64);
  if (staging->free_pages() < kPieceWords * 64 + kLargestResidue / 4) {
    TRY(staging->relieve(commit->file(pack), kPieceWords * 64 + kLargestResidue / 4));
  }
  std::array<uint64_t, kPieceWords> left{};
  std::ranges::copy(piece, left.begin());
  while (count_bits(left) > 0) {
    // A guest is held no longer for a slice than it may be for the pause.
    uint64_t most = kPieceWords * 64;
    if (throttled) most = pages_in_budget(static_cast<uint64_t>(capture.hold_ns_), most);
    std::array<uint64_t, kPieceWords> slice{};
    uint64_t pages = 0;
    for_each_page(left, 0, [&](uint64_t page) {
      slice[page / 64] |= 1ull << (page % 64);
      return ++pages < most;
    });
    for (size_t i = 0; i < kPieceWords; ++i) left[i] &= ~slice[i];
    TRY(copy_slice(first_word, std::span(slice).first(piece.size())));
    // The guest runs meanwhile.
    TRY(staging->settle());
  }
  return staging->relieve(commit->file(pack), 0);
}

// Clears and copies pages. A held guest writes nothing: what is copied now is not dirty again
// before the slice ends.
Result<void> Capture::Run::copy_slice(uint64_t first_word, std::span<const uint64_t> slice) {
  base::Urgency urgency(1);
  if (throttled) urgency.raise_caller();
  uint64_t start = now_ns();
  if (throttled) guest().hold();
  auto copy = [&]() -> Result<void> {
    uint64_t cleared_from = now_ns();
    TRY(guest().clear_dirty(first_word * 64, slice));
    uint64_t cleared = now_ns();
    outcome.longest_clear_ns = std::max(outcome.longest_clear_ns, cleared - cleared_from);
    if (throttled) smooth(capture.hold_ns_, static_cast<double>(cleared - start), 1e6);
    Result<void> copied;
    for_each_page(slice, first_word * 64, [&](uint64_t page) {
      copied = copy_page(page, guest().page(page));
      return copied.has_value();
    });
    double each = static_cast<double>(now_ns() - cleared) / static_cast<double>(count_bits(slice));
    smooth(capture.copy_ns_, each, 5000);
    return copied;
  };
  Result<void> copied = copy();
  if (throttled) {
    guest().release();
    uint64_t held = now_ns() - start;
    ++outcome.slices;
    outcome.held_ns += held;
    outcome.longest_hold_ns = std::max(outcome.longest_hold_ns, held);
  }
  return copied;
}

Result<void> Capture::Run::copy_page(uint64_t page, const std::byte* from) {
  if (!staging->copy(page, from)) return fail("the staging pool is full");
  return {};
}

Result<bool> Capture::Run::pause(bool at_any_price) {
  uint64_t room = room_in_pause(at_any_price);
  TRY(staging->relieve(commit->file(pack), room));
  staging->reserve(room);
  // In the pause these words are gone through, and the log once: other passes over so many bits
  // would be felt.
  std::vector<size_t> words;
  for_each_word(pending, [&](size_t word) {
    words.push_back(word);
    return true;
  });
  residue.clear();
  if (!at_any_price) residue.reserve(room + 1);
  times = {};
  base::Urgency urgency(1);
  // Not where it may take seconds, of the disk's too.
  if (!at_any_price) urgency.raise_caller();
  TRY(guest().begin_pause(times));
  bool taken = false;
  auto paused = [&]() -> Result<void> {
    uint64_t start = now_ns();
    TRY(guest().peek_dirty(last_look));
    for (size_t word : words) last_look[word] |= pending[word];
    bool few = for_each_page(last_look, 0, [&](uint64_t page) {
      residue.push_back(page);
      return at_any_price || residue.size() <= room;
    });
    times.log = now_ns() - start;
    if (!few) return {};
    start = now_ns();
    outcome.residue = residue.size();
    for (uint64_t page : residue) {
      if (staging->free_pages() == 0) {
        // At any price, or with a very small pool: the guest stands still for as long as the disk
        // takes. Who is urgent stays so: he may not let go of urgent ones as an ordinary thread.
        TRY(staging->settle());
        TRY(staging->relieve(commit->file(pack), kPieceWords * 64));
        staging->reserve(kPieceWords * 64);
      }
      TRY(copy_page(page, guest().page(page)));
    }
    times.stage = now_ns() - start;
    start = now_ns();
    TRY(guest().save_state());
    if (options.in_pause) options.in_pause();
    times.state += now_ns() - start;
    taken = true;
    return {};
  };
  Result<void> result = paused();
  if (taken && options.stop) {
    guest().hold();
    left_held = true;
  }
  guest().end_pause(taken, times);
  urgency.lower();
  // What the log named in the pause is in the next epoch as well; what was in `pending` before is
  // in this one.
  add_bits(pending, last_look);
  add_bits(capture.epoch_, pending);
  TRY(result);
  if (taken) {
    capture.last_fixed_ns_ = times.total() - times.stage;
    outcome.pause = times;
  }
  return taken;
}

Result<void> Capture::Run::finish() {
  progress.committing = true;
  progress.pages_left = 0;
  base::SectionWriter sections;
  guest().encode_state(sections);
  TRY(staging->flush(commit->file(pack)));
  progress.written_bytes = staging->counts().written * kPageBytes;
  TRY(guest().seal_disks(*commit));
  TRY(check_cancel());
  TRY(commit->set_pages(kRamSpace, guest().ram_pages(), staging->take_entries(pack)));
  outcome.pages = staging->counts();
  SnapshotNotes notes = guest().notes();
  notes.config = options.config;
  notes.pause_ns = outcome.pause.total();
  TRY_ASSIGN(auto snapshot, commit->finish(sections, notes));
  // As the store's list has them: in a full one all that is zero counts.
  outcome.pages.zero = snapshot->manifest().zero_pages;
  outcome.bytes = snapshot->manifest().stored_bytes + snapshot->manifest_bytes();
  // Real from here on: what it holds need not be captured again.
  std::ranges::fill(capture.epoch_, 0);
  guest().committed(snapshot);
  return {};
}

}  // namespace snapshot
