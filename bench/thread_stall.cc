// What a guest feels of a snapshot where it is a thread of this program, named vcpu0, and there is
// no KVM: capture and store are the real ones, the dirty log and the pause are the least that will
// do. What such a guest feels beside its pause is neither KVM's nor the devices' doing. Runs
// anywhere; bench/kept.py tells who kept the thread from its processor.
//
//   thread_stall STORE [COUNT]     COUNT snapshots (200), each with a window without one and a
//                                  window in which a thread spins
#include <fmt/format.h>
#include <pthread.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "snapshot/capture.h"
#include "vmm/base/heap.h"

namespace {

using base::Result;
using Clock = std::chrono::steady_clock;

constexpr uint64_t kRamPages = (uint64_t{2} << 30) / snapshot::kPageBytes;
constexpr uint64_t kSetPages = kRamPages / 2;
constexpr std::chrono::microseconds kBetweenWrites(100);  // 10,000 pages a second

[[noreturn]] void fail(const std::string& what) {
  fmt::print(stderr, "thread_stall: {}\n", what);
  std::exit(2);
}

class ThreadGuest : public snapshot::LiveGuest {
 public:
  ThreadGuest()
      : memory_(static_cast<std::byte*>(::mmap(nullptr, kRamPages * snapshot::kPageBytes,
                                               PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                                               -1, 0))),
        dirty_(kRamPages / 64) {
    if (memory_ == MAP_FAILED) fail("no memory");
    for (uint64_t page = 0; page < kSetPages; ++page) word(page, 0) = page + 1;
    thread_ = std::thread([this] { run(); });
    ::pthread_setname_np(thread_.native_handle(), "vcpu0");
  }
  ~ThreadGuest() override {
    done_ = true;
    thread_.join();
    ::munmap(memory_, kRamPages * snapshot::kPageBytes);
  }

  void forget_gaps() { longest_ns_ = 0; }
  uint64_t longest_gap_ns() const { return longest_ns_; }

  uint64_t ram_pages() const override { return kRamPages; }
  const std::byte* page(uint64_t page) const override {
    return memory_ + page * snapshot::kPageBytes;
  }
  Result<void> start_log() override {
    if (!std::exchange(logging_, true)) std::ranges::fill(dirty_, ~0ull);
    return {};
  }
  Result<void> fetch_dirty(std::span<uint64_t> bits) override {
    for (size_t i = 0; i < bits.size(); ++i) bits[i] |= std::atomic_ref(dirty_[i]).load();
    return {};
  }
  Result<void> clear_dirty(uint64_t first_page, std::span<const uint64_t> bits) override {
    for (size_t i = 0; i < bits.size(); ++i) {
      if (bits[i] != 0) std::atomic_ref(dirty_[first_page / 64 + i]).fetch_and(~bits[i]);
    }
    return {};
  }
  Result<void> fetch_resident(std::span<uint64_t> bits) const override {
    std::ranges::fill(bits, ~0ull);
    return {};
  }
  void hold() override {
    std::unique_lock lock(mutex_);
    wanted_ = true;
    changed_.wait(lock, [this] { return held_; });
  }
  void release() override {
    std::lock_guard lock(mutex_);
    wanted_ = false;
    changed_.notify_all();
  }
  Result<void> begin_pause(PauseTimes& times) override {
    auto start = Clock::now();
    hold();
    times.stop = static_cast<uint64_t>((Clock::now() - start).count());
    return {};
  }
  Result<void> peek_dirty(std::span<uint64_t> bits) override {
    std::ranges::fill(bits, 0);
    return fetch_dirty(bits);
  }
  Result<void> save_state() override { return {}; }
  void end_pause(bool, PauseTimes&) override { release(); }
  void encode_state(base::SectionWriter& sections) override { sections.begin("thread", 1); }
  Result<void> prepare_disks(snapshot::Branch&) override { return {}; }
  Result<void> seal_disks(snapshot::Commit&) override { return {}; }
  void committed(const std::shared_ptr<const snapshot::Snapshot>&) override {}
  void failed(const base::Error&) override {}
  snapshot::SnapshotNotes notes() const override {
    return {.memory = {{0, kRamPages * snapshot::kPageBytes}}, .disks = {}, .config = {}};
  }

 private:
  volatile uint64_t& word(uint64_t page, uint64_t index) {
    return reinterpret_cast<volatile uint64_t*>(memory_ + page * snapshot::kPageBytes)[index];
  }
  void run() {
    auto last = Clock::now(), next = last;
    for (uint64_t writes = 0; !done_;) {
      auto now = Clock::now();
      auto gap = static_cast<uint64_t>((now - last).count());
      if (gap > longest_ns_.load(std::memory_order_relaxed)) longest_ns_ = gap;
      last = now;
      if (now >= next) {
        const uint64_t page = ++writes % kSetPages;
        word(page, writes % (snapshot::kPageBytes / 8)) = writes;
        std::atomic_ref(dirty_[page / 64]).fetch_or(1ull << (page % 64));
        next = now + kBetweenWrites;
      }
      if (!wanted_) continue;
      std::unique_lock lock(mutex_);
      held_ = true;
      changed_.notify_all();
      changed_.wait(lock, [this] { return !wanted_; });
      held_ = false;
    }
  }

  std::byte* const memory_;
  std::vector<uint64_t> dirty_;
  bool logging_ = false;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::atomic<bool> wanted_ = false, done_ = false;
  bool held_ = false;
  std::atomic<uint64_t> longest_ns_ = 0;
  std::thread thread_;
};

void print(const char* name, std::vector<uint64_t> ns) {
  std::ranges::sort(ns);
  auto us = [&](double part) {
    return static_cast<double>(ns[static_cast<size_t>(part * static_cast<double>(ns.size() - 1))]) /
           1e3;
  };
  fmt::print("{:<30} p50 {:>9.1f} us   p99 {:>9.1f} us   max {:>9.1f} us\n", name, us(0.5),
             us(0.99), us(1));
}

}  // namespace

int main(int argc, char** argv) {
  base::use_one_heap();  // as minivmm
  unsigned count = 200;
  const std::string number = argc == 3 ? argv[2] : "200";
  auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), count);
  if (argc < 2 || argc > 3 || error != std::errc() || *end != '\0' || count == 0) {
    fail("usage: thread_stall STORE [COUNT]");
  }
  auto store = snapshot::Store::open_or_create(argv[1]);
  if (!store) fail(store.error().text());
  auto branch = (*store)->create_branch(std::nullopt, "thread");
  if (!branch) fail(branch.error().text());
  ThreadGuest guest;
  snapshot::Capture capture(guest, **store, **branch);
  snapshot::Capture::Progress progress;
  auto take = [&] {
    auto outcome = capture.take({}, progress);
    if (!outcome) fail(outcome.error().text());
    return *outcome;
  };
  take();
  std::vector<uint64_t> with, without, spinning, pause, total;
  for (unsigned i = 0; i < count; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    guest.forget_gaps();
    auto outcome = take();
    with.push_back(guest.longest_gap_ns());
    pause.push_back(outcome.pause.total());
    total.push_back(outcome.total_ns);
    const std::chrono::nanoseconds window(outcome.total_ns);
    guest.forget_gaps();
    std::this_thread::sleep_for(window);
    without.push_back(guest.longest_gap_ns());
    guest.forget_gaps();
    for (auto last = Clock::now() + window; Clock::now() < last;) {
    }
    spinning.push_back(guest.longest_gap_ns());
  }
  print("longest gap, with a snapshot", with);
  print("longest gap, without", without);
  print("longest gap, a thread spins", spinning);
  print("pause", pause);
  print("whole snapshot", total);
}
