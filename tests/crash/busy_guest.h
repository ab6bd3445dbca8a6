// A guest that is captured while it writes, with everything on one thread: it runs when the capture
// looks at its log, clears it, begins the pause and ends it, and writes what a seed says. So the
// calls of a capture are the same each time, and one of them can be made to fail. A page is a
// number (guest.h).
//
// With a `max_pause_ns` of 1 no part of a capture depends on the clock.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <random>

#include "tests/crash/guest.h"
#include "tests/support/fake_live_guest.h"

namespace test {

class BusyGuest : public snapshot_test::FakeLiveGuest {
 public:
  BusyGuest(uint64_t pages, uint64_t seed) : FakeLiveGuest(pages), ram_(pages), random_(seed) {}

  void set(uint64_t page, uint64_t value);
  // As many writes, each to one of the `among` pages from `first` on.
  void work(uint64_t writes, uint64_t first, uint64_t among);
  Content content() const { return {ram_, {}}; }
  const Content& content_at_pause() const { return at_pause_; }
  // Called when the capture has written all pages.
  std::function<void()> written;

  base::Result<void> fetch_dirty(std::span<uint64_t> bits) override;
  base::Result<void> clear_dirty(uint64_t first_page, std::span<const uint64_t> bits) override;
  void hold() override;
  void release() override;
  base::Result<void> begin_pause(PauseTimes& times) override;
  void end_pause(bool commit_point, PauseTimes& times) override;
  void encode_state(base::SectionWriter& sections) override;
  base::Result<void> seal_disks(snapshot::Commit&) override;
  void committed(const std::shared_ptr<const snapshot::Snapshot>& snapshot) override;

 private:
  // Writes mostly to pages of which the log was cleared not long ago: copied a moment before, or
  // about to be.
  void work_on_recent(uint64_t writes);
  void write_something(uint64_t page);

  Pages ram_;
  Content at_pause_, committed_;
  std::deque<uint64_t> recent_;
  uint64_t cleared_ = 0;  // since the last look at the log
  uint64_t next_value_ = 1000;
  bool held_ = false;
  std::minstd_rand random_;
};

}  // namespace test
