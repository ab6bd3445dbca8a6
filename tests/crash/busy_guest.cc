#include "tests/crash/busy_guest.h"

namespace test {

using base::Result;

namespace {
constexpr size_t kRecentPages = 96;
}

void BusyGuest::set(uint64_t page, uint64_t value) {
  ram_[page] = value;
  write_page(page, value);
}

// A new number, zero, or what the last snapshot has; by a processor or a device.
void BusyGuest::write_something(uint64_t page) {
  uint64_t value = next_value_++;
  if (random_() % 6 == 0) value = 0;
  if (random_() % 6 == 0 && !committed_.ram.empty()) value = committed_.ram[page];
  if (random_() % 4 > 0) return set(page, value);
  ram_[page] = value;
  device_write_page(page, value);
}

void BusyGuest::work(uint64_t writes, uint64_t first, uint64_t among) {
  for (uint64_t i = 0; i < writes; ++i) write_something(first + random_() % among);
}

void BusyGuest::work_on_recent(uint64_t writes) {
  if (held_ || recent_.empty()) return;
  for (uint64_t i = 0; i < writes; ++i) {
    bool any = random_() % 8 == 0;
    write_something(any ? random_() % ram_.size() : recent_[random_() % recent_.size()]);
  }
}

Result<void> BusyGuest::fetch_dirty(std::span<uint64_t> bits) {
  work_on_recent(cleared_ / 4);
  cleared_ = 0;
  return FakeLiveGuest::fetch_dirty(bits);
}

Result<void> BusyGuest::clear_dirty(uint64_t first_page, std::span<const uint64_t> bits) {
  snapshot::for_each_page(bits, first_page, [this](uint64_t page) {
    recent_.push_back(page);
    if (recent_.size() > kRecentPages) recent_.pop_front();
    return true;
  });
  uint64_t pages = snapshot::count_bits(bits);
  cleared_ += pages;
  work_on_recent(pages / 8);
  TRY(FakeLiveGuest::clear_dirty(first_page, bits));
  work_on_recent(pages / 4);
  return {};
}

void BusyGuest::hold() {
  FakeLiveGuest::hold();
  held_ = true;
}

void BusyGuest::release() {
  held_ = false;
  FakeLiveGuest::release();
}

Result<void> BusyGuest::begin_pause(PauseTimes& times) {
  work_on_recent(3);
  TRY(FakeLiveGuest::begin_pause(times));
  held_ = true;
  return {};
}

void BusyGuest::end_pause(bool commit_point, PauseTimes& times) {
  if (commit_point) at_pause_ = content();
  held_ = false;
  FakeLiveGuest::end_pause(commit_point, times);
  work_on_recent(8);
}

void BusyGuest::encode_state(base::SectionWriter& sections) {
  sections.begin("vcpu0", 1).u64(at_pause_.ram[0]);
}

Result<void> BusyGuest::seal_disks(snapshot::Commit&) {
  if (written) written();
  return {};
}

void BusyGuest::committed(const std::shared_ptr<const snapshot::Snapshot>& snapshot) {
  FakeLiveGuest::committed(snapshot);
  committed_ = at_pause_;
}

}  // namespace test
