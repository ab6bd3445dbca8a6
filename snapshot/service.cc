#include "snapshot/service.h"

#include <fmt/format.h>

#include "vmm/base/log.h"
#include "vmm/base/path.h"
#include "vmm/base/thread.h"

namespace snapshot {

using base::fail;
using base::Result;
using Clock = std::chrono::steady_clock;

// For whoever asked for a snapshot that ends the machine to ask how it went.
constexpr std::chrono::seconds kResultPatience{5};
// The staging pool is kept so long for the next snapshot: where the host is a virtual machine that
// tells its own host of free memory, giving it back and getting it again costs the guest a
// processor for milliseconds.
constexpr std::chrono::seconds kPoolPatience{10};
constexpr std::chrono::hours kNever{24 * 365};
constexpr size_t kRemembered = 8;  // results
// A guest that is asked to shut down has that long for it, or goes on as before.
constexpr std::chrono::minutes kShutdownPatience{2};

Result<std::unique_ptr<SnapshotService>> SnapshotService::create(
    Config config, std::unique_ptr<MachineGuest> guest, std::shared_ptr<Store> store,
    std::unique_ptr<Branch> branch) {
  std::unique_ptr<SnapshotService> service(new SnapshotService(
      std::move(config), std::move(guest), std::move(store), std::move(branch)));
  if (!service->store_ && !service->config_.store_path.empty()) {
    TRY(service->open_store(service->config_.store_path));
  }
  return service;
}

Result<void> SnapshotService::begin() {
  TRY_ASSIGN(thread_, base::start_thread("snapshots", [this] { thread_main(); }));
  return {};
}

SnapshotService::SnapshotService(Config config, std::unique_ptr<MachineGuest> guest,
                                 std::shared_ptr<Store> store, std::unique_ptr<Branch> branch)
    : config_(std::move(config)),
      guest_(std::move(guest)),
      store_(std::move(store)),
      branch_(std::move(branch)),
      progress_(std::make_unique<Capture::Progress>()),
      store_path_(store_ ? store_->storage().path() : "") {
  if (branch_) capture_ = std::make_unique<Capture>(*guest_, *store_, *branch_);
}

SnapshotService::~SnapshotService() {
  {
    std::lock_guard lock(mutex_);
    ending_ = true;
    progress_->cancel = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

Result<uint64_t> SnapshotService::request(const Request& request) {
  std::lock_guard lock(mutex_);
  if (ending_ || stopped_) return fail("the machine is ending");
  // Behind one that nobody asked for it waits.
  if (next_ || (running_ && !scheduled_)) {
    return fail("a snapshot is being taken; wait for it, or cancel it");
  }
  if (!request.store_path.empty() && !store_path_.empty() &&
      !base::same_file(request.store_path, store_path_)) {
    return fail(
        fmt::format("the machine's snapshots are in {}; it writes to one store only", store_path_));
  }
  if (store_path_.empty()) TRY(guest_->check_disks());
  if (request.store_path.empty() && store_path_.empty()) {
    return fail("no store: say where snapshots go, as in --store DIR");
  }
  next_ = request;
  told_ = false;
  changed_.notify_all();
  return begin_next();
}

uint64_t SnapshotService::begin_next() {
  if (last_) {
    if (previous_.size() == kRemembered) previous_.erase(previous_.begin());
    previous_.emplace_back(number_, *std::move(last_));
    last_.reset();
  }
  progress_->cancel = false;
  running_ = true;
  started_ = Clock::now();
  return ++number_;
}

SnapshotService::Status SnapshotService::status() {
  std::lock_guard lock(mutex_);
  Status status;
  status.number = number_;
  status.running = running_;
  status.store_path = store_path_;
  status.last = last_;
  status.previous = previous_;
  if (last_) {
    told_ = true;
    changed_.notify_all();
  }
  if (running_) {
    status.round = progress_->round;
    status.pages_left = progress_->pages_left;
    status.copied = progress_->copied;
    status.written_bytes = progress_->written_bytes;
    status.committing = progress_->committing;
    status.elapsed_ms = static_cast<uint64_t>(
        std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - started_).count());
  }
  return status;
}

void SnapshotService::disk_full(const std::string& message) {
  std::lock_guard lock(mutex_);
  disk_full_ = message;
  changed_.notify_all();
}

void SnapshotService::resume_disks() {
  {
    // Said while a snapshot was taken, and known by now: a disk that is full still says so again.
    std::lock_guard lock(mutex_);
    disk_full_.reset();
  }
  guest_->resume_disks();
}

void SnapshotService::shutdown_asked() {
  std::lock_guard lock(mutex_);
  quiet_until_ = Clock::now() + kShutdownPatience;
  changed_.notify_all();
}

void SnapshotService::cancel() {
  std::lock_guard lock(mutex_);
  if (running_) progress_->cancel = true;
}

Result<Capture::Outcome> SnapshotService::wait(uint64_t number) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return ending_ || number_ > number || (number_ == number && last_); });
  if (number_ == number && last_) return *last_;
  for (const auto& [other, outcome] : previous_) {
    if (other == number) return outcome;
  }
  return fail("the snapshot's result is gone: the machine ended, or took another one");
}

void SnapshotService::thread_main() {
  auto due = config_.every.count() > 0 ? Clock::now() + config_.every : Clock::time_point::max();
  auto give_back = Clock::now() + kNever;  // the pool
  std::unique_lock lock(mutex_);
  while (!ending_) {
    auto asked = [this] { return ending_ || next_.has_value() || disk_full_.has_value(); };
    bool was_asked = changed_.wait_until(lock, std::min(due, give_back), asked);
    if (ending_) return;
    if (!was_asked && due < quiet_until_) {
      due = quiet_until_;
      continue;
    }
    if (!was_asked && give_back < due) {
      give_back = Clock::now() + kNever;
      lock.unlock();
      if (capture_) capture_->release_pool();
      lock.lock();
      continue;
    }
    if (disk_full_) {
      std::string message = *std::exchange(disk_full_, std::nullopt);
      lock.unlock();
      config_.on_disk_full(message);
      lock.lock();
      continue;
    }
    bool scheduled = !next_;
    scheduled_ = scheduled;
    if (scheduled) begin_next();
    Request request = next_.value_or(Request{});
    next_.reset();
    lock.unlock();
    progress_->round = progress_->pages_left = progress_->copied = progress_->written_bytes = 0;
    progress_->committing = false;
    Result<Capture::Outcome> outcome = take(request);
    if (outcome) prune();
    if (scheduled && config_.on_scheduled) config_.on_scheduled(outcome);
    lock.lock();
    // Not stacked: one that took longer than the interval is followed by a full interval.
    auto now = Clock::now();
    give_back = now + kPoolPatience;
    if (config_.every.count() > 0) {
      due = scheduled && due + config_.every > now ? due + config_.every : now + config_.every;
    }
    if (next_) continue;  // the number is that one's already
    stopped_ = outcome && request.stop;
    last_ = std::move(outcome);
    running_ = false;
    changed_.notify_all();
    if (stopped_) return end_machine(request, lock);
  }
}

void SnapshotService::end_machine(const Request& request, std::unique_lock<std::mutex>& lock) {
  // With the machine goes the process, and with that whoever could answer.
  if (request.result_wanted) {
    changed_.wait_for(lock, kResultPatience, [this] { return ending_ || told_; });
  }
  lock.unlock();
  config_.on_stopped();
  guest_->release();
}

Result<Capture::Outcome> SnapshotService::take(const Request& request) {
  const bool opened = !branch_;
  if (opened) TRY(open_store(request.store_path));
  Capture::Options options = config_.options;
  options.full = request.full;
  options.stop = request.stop;
  options.config = config_.config;
  if (request.max_pause_ns) options.max_pause_ns = *request.max_pause_ns;
  if (request.on_hot) options.on_hot = *request.on_hot;
  auto taken = capture_->take(options, *progress_);
  if (!taken && opened) close_store();
  TRY_ASSIGN(Capture::Outcome outcome, std::move(taken));
  // Not part of the snapshot, which is safe already.
  if (auto merged = branch_->merge_if_due(); !merged) {
    base::log_warning("merging the store's index: {}", merged.error().text());
  }
  return outcome;
}

Result<void> SnapshotService::open_store(const std::string& path) {
  TRY_ASSIGN(store_, Store::open_or_create(path));
  TRY_ASSIGN(branch_, store_->create_branch(std::nullopt, config_.vm_name));
  capture_ = std::make_unique<Capture>(*guest_, *store_, *branch_);
  std::lock_guard lock(mutex_);
  store_path_ = path;
  return {};
}

// There is no snapshot in it: the next one may go elsewhere.
void SnapshotService::close_store() {
  capture_.reset();
  branch_.reset();
  store_.reset();
  std::lock_guard lock(mutex_);
  store_path_.clear();
}

void SnapshotService::prune() {
  if (config_.keep == 0) return;
  const PruneOptions own{
      .keep = config_.keep, .branch = branch_->id(), .remove = {}, .keep_ids = {}};
  if (auto pruned = store_->prune(own); !pruned) {
    base::log_warning("pruning {}: {}", store_path_, pruned.error().text());
  }
}

}  // namespace snapshot
