#include "tests/support/fake_live_guest.h"

#include <sched.h>

#include <algorithm>
#include <chrono>
#include <cstring>

namespace snapshot_test {

using base::Result;
using snapshot::kPageBytes;

FakeLiveGuest::FakeLiveGuest(uint64_t pages)
    : pages_(pages),
      memory_(pages * kPageBytes),
      dirty_(snapshot::make_page_bits(pages)),
      host_(snapshot::make_page_bits(pages)),
      absent_(snapshot::make_page_bits(pages)) {}

FakeLiveGuest::~FakeLiveGuest() { stop_writer(); }

void FakeLiveGuest::start_writer(uint64_t working_set, unsigned pause_us, uint32_t seed) {
  stop_ = false;
  writer_ = std::thread([this, working_set, pause_us, seed] {
    std::minstd_rand random(seed);
    while (!stop_) {
      write(random() % working_set, random() % (kPageBytes / 8), random());
      if (pause_us > 0) std::this_thread::sleep_for(std::chrono::microseconds(pause_us));
    }
  });
}

void FakeLiveGuest::stop_writer() {
  stop_ = true;
  if (writer_.joinable()) writer_.join();
}

void FakeLiveGuest::write(uint64_t page, uint64_t word, uint64_t value) {
  std::lock_guard running(guest_);
  write_locked(page, word, value);
}

// Not seen by the thread sanitizer, as a real guest's writes are not.
__attribute__((no_sanitize("thread"), noinline)) static void store_word(std::byte* to,
                                                                        uint64_t value) {
  *reinterpret_cast<volatile uint64_t*>(to) = value;
}

void FakeLiveGuest::write_locked(uint64_t page, uint64_t word, uint64_t value) {
  std::lock_guard log(log_);
  if (logging_) dirty_[page / 64] |= 1ull << (page % 64);
  store_word(memory_.data() + page * kPageBytes + word * 8, value);
  ++writes_;
}

void FakeLiveGuest::fill(uint64_t page, std::byte value) {
  uint64_t word;
  std::memset(&word, static_cast<int>(value), sizeof word);
  for (uint64_t i = 0; i < kPageBytes / 8; ++i) write(page, i, word);
}

void FakeLiveGuest::write_page(uint64_t page, uint64_t value) {
  std::lock_guard running(guest_);
  for (uint64_t i = 0; i < kPageBytes / 8; ++i) write_locked(page, i, value);
}

void FakeLiveGuest::device_write(uint64_t page, uint64_t value) {
  store_word(memory_.data() + page * kPageBytes, value);
  std::lock_guard log(log_);
  host_[page / 64] |= 1ull << (page % 64);
}

void FakeLiveGuest::device_write_page(uint64_t page, uint64_t value) {
  for (uint64_t i = 1; i < kPageBytes / 8; ++i) {
    store_word(memory_.data() + page * kPageBytes + i * 8, value);
  }
  device_write(page, value);
}

void FakeLiveGuest::take_memory_away() {
  std::ranges::fill(memory_, std::byte{0xEE});
  std::ranges::fill(absent_, ~0ull);
  std::ranges::fill(dirty_, 0);
  std::ranges::fill(host_, 0);
  logging_ = true;
}

void FakeLiveGuest::arrive(uint64_t page, std::span<const std::byte, kPageBytes> content) {
  std::ranges::copy(content, memory_.data() + page * kPageBytes);
  absent_[page / 64] &= ~(1ull << (page % 64));
}

Result<void> FakeLiveGuest::start_log() {
  std::lock_guard log(log_);
  if (logging_) return {};
  logging_ = true;
  for (uint64_t page = 0; page < pages_; ++page) dirty_[page / 64] |= 1ull << (page % 64);
  return {};
}

Result<void> FakeLiveGuest::fetch_dirty(std::span<uint64_t> bits) {
  if (before_fetch_dirty) before_fetch_dirty();
  urgent_elsewhere |= is_urgent();
  std::lock_guard log(log_);
  snapshot::add_bits(bits, dirty_);
  snapshot::add_bits(bits, host_);
  std::ranges::fill(host_, 0);
  return {};
}

Result<void> FakeLiveGuest::clear_dirty(uint64_t first_page, std::span<const uint64_t> bits) {
  if (first_page % 64 != 0 || bits.size() > 8) return base::fail("clear_dirty: not a piece");
  std::lock_guard log(log_);
  for (size_t i = 0; i < bits.size(); ++i) dirty_[first_page / 64 + i] &= ~bits[i];
  if (held_) in_hold_ += snapshot::count_bits(bits);
  return {};
}

Result<void> FakeLiveGuest::fetch_resident(std::span<uint64_t> bits) const {
  for (uint64_t page = 0; page < pages_; ++page) {
    if ((absent_[page / 64] >> (page % 64) & 1) == 0) bits[page / 64] |= 1ull << (page % 64);
  }
  if (after_fetch_resident) after_fetch_resident();
  return {};
}

bool FakeLiveGuest::is_urgent() {
  return (::sched_getscheduler(0) & ~SCHED_RESET_ON_FORK) == SCHED_FIFO;
}

void FakeLiveGuest::hold() {
  guest_.lock();
  ++holds;
  if (is_urgent()) ++urgent_holds;
  held_ = true;
  in_hold_ = 0;
}

void FakeLiveGuest::release() {
  most_in_hold = std::max(most_in_hold, in_hold_);
  held_ = false;
  guest_.unlock();
}

Result<void> FakeLiveGuest::begin_pause(PauseTimes&) {
  guest_.lock();
  ++pauses;
  if (is_urgent()) ++urgent_pauses;
  return {};
}

Result<void> FakeLiveGuest::peek_dirty(std::span<uint64_t> bits) {
  std::lock_guard log(log_);
  std::ranges::fill(bits, 0);
  snapshot::add_bits(bits, dirty_);
  snapshot::add_bits(bits, host_);
  return {};
}

Result<void> FakeLiveGuest::save_state() {
  writes_at_pause_ = writes_;
  return {};
}

void FakeLiveGuest::end_pause(bool commit_point, PauseTimes&) {
  if (commit_point) at_pause = memory_;
  guest_.unlock();
}

snapshot::SnapshotNotes FakeLiveGuest::notes() const {
  return {.memory = {{0, pages_ * kPageBytes}}, .disks = {}, .config = {}};
}

void FakeLiveGuest::encode_state(base::SectionWriter& sections) {
  sections.begin("fake", 1).u64(writes_at_pause_);
}

}  // namespace snapshot_test
