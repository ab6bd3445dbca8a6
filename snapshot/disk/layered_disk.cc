// Requests of a layered disk: which run and which wait, and freezing.
#include "snapshot/disk/layered_disk.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <cassert>
#include <cerrno>

#include "vmm/base/log.h"

namespace snapshot {

using base::Result;

namespace {

constexpr unsigned kMostPieces = 8;  // of a request in flight

}  // namespace

Result<std::unique_ptr<LayeredDisk>> LayeredDisk::create(Options options) {
  base::Fd events(::epoll_create1(EPOLL_CLOEXEC));
  if (!events) return base::fail_errno("epoll");
  TRY_ASSIGN(base::EventFd wake, base::EventFd::create());
  for (int fd : {options.queue->event().fd(), options.base->event_fd(), wake.fd()}) {
    epoll_event event{};
    event.events = EPOLLIN;
    if (::epoll_ctl(events.get(), EPOLL_CTL_ADD, fd, &event) < 0) return base::fail_errno("epoll");
  }
  return std::unique_ptr<LayeredDisk>(
      new LayeredDisk(std::move(options), std::move(events), std::move(wake)));
}

LayeredDisk::LayeredDisk(Options options, base::Fd events, base::EventFd wake)
    : name_(std::move(options.name)),
      format_(options.format),
      flush_(options.flush),
      on_full_(std::move(options.on_full)),
      events_(std::move(events)),
      wake_(std::move(wake)),
      base_(std::move(options.base)),
      queue_(std::move(options.queue)) {}

Result<std::unique_ptr<LayeredDisk>> LayeredDisk::on_image(Options options,
                                                           std::optional<BaseIdentity> identity) {
  TRY_ASSIGN(auto disk, create(std::move(options)));
  disk->identity_ = identity;
  disk->base_writable_ = true;
  disk->read_only_ = disk->base_->read_only();
  disk->can_discard_ = disk->base_->can_discard();
  if (!disk->read_only_) {
    std::string name = fmt::format("/proc/self/fd/{}", disk->base_->file().fd());
    disk->base_sync_ = base::Fd(::open(name.c_str(), O_RDONLY | O_CLOEXEC));
    if (!disk->base_sync_) return base::fail_errno("disk " + disk->name_ + ": open once more");
  }
  return disk;
}

Result<std::unique_ptr<LayeredDisk>> LayeredDisk::on_snapshot(
    Options options, std::shared_ptr<const CommittedBlocks> parent, const BaseIdentity& identity,
    LayerFiles top) {
  TRY_ASSIGN(auto disk, create(std::move(options)));
  disk->parent_ = std::move(parent);
  disk->identity_ = identity;
  TRY(disk->prepare_freeze(std::move(top)));
  disk->top_ = std::move(disk->next_);
  return disk;
}

// --- requests ---

void LayeredDisk::start(Request& request) {
  std::lock_guard lock(mutex_);
  if (idle_flights_.empty()) {
    idle_flights_.push_back(flights_.emplace_back(std::make_unique<Flight>()).get());
  }
  Flight& flight = *idle_flights_.back();
  idle_flights_.pop_back();
  flight = Flight{};
  flight.request = &request;
  ++in_flight_;
  if (request.type == Request::Type::kFlush) {
    flush_waiting_.push_back(&flight);
    return begin_round();
  }
  uint64_t begin = request.offset, end = begin;
  if (request.type == Request::Type::kRead || request.type == Request::Type::kWrite) {
    flight.length = total_bytes(request.memory);
    end += flight.length;
  } else if (!request.ranges.empty()) {
    begin = UINT64_MAX;
    for (const virtio::DiskRange& range : request.ranges) {
      begin = std::min(begin, range.offset);
      end = std::max(end, range.offset + range.length);
    }
  }
  flight.first = begin / kPageBytes;
  flight.end = (end + kPageBytes - 1) / kPageBytes;
  flight.exclusive = request.type != Request::Type::kRead;
  if (flight.exclusive) {
    if (broken_) return finish(flight, EIO);
    flight.waiting = must_wait(flight);
    exclusive_.push_back(&flight);
  }
  if (!flight.waiting) runnable_.push_back(&flight);
  run();
}

// Two requests that change a block could otherwise meet in any order, with it two that change
// different sectors of one: the second would bring back what it read before the first was written.
bool LayeredDisk::must_wait(const Flight& flight) const {
  for (const Flight* earlier : exclusive_) {
    if (earlier == &flight) return false;
    if (earlier->first < flight.end && flight.first < earlier->end) return true;
  }
  return false;
}

void LayeredDisk::release_waiting() {
  for (Flight* flight : exclusive_) {
    if (!flight->waiting || must_wait(*flight)) continue;
    flight->waiting = false;
    runnable_.push_back(flight);
  }
}

void LayeredDisk::run() {
  for (;;) {
    std::deque<Flight*>& from = runnable_.empty() && buffers_.available() ? starved_ : runnable_;
    if (from.empty()) return;
    Flight& flight = *from.front();
    from.pop_front();
    pump(flight);
  }
}

// Starts as much of the request as may be in flight, and ends it where all of it is done.
void LayeredDisk::pump(Flight& flight) {
  if (base_writable_ && flight.issued == 0 && !flight.passed) return pass(flight);
  // Ranges may meet in a block, pieces of a transfer do not.
  unsigned most = flight.request->ranges.empty() ? kMostPieces : 1;
  while (flight.error == 0 && more(flight) && flight.pieces < most) {
    if (!issue(flight)) {
      starved_.push_back(&flight);
      return;
    }
  }
  if (flight.pieces == 0 && (flight.error != 0 || !more(flight))) end(flight);
}

bool LayeredDisk::more(const Flight& flight) const {
  if (flight.passed) return false;
  return flight.issued < flight.length || flight.range < flight.request->ranges.size();
}

void LayeredDisk::pass(Flight& flight) {
  flight.passed = true;
  Piece& piece = take_piece(flight, flight.request->offset, flight.length);
  piece.step = Piece::Step::kPass;
  piece.base.type = flight.request->type;
  piece.base.offset = flight.request->offset;
  piece.base.memory.swap(flight.request->memory);
  piece.base.ranges.swap(flight.request->ranges);
  if (flight.exclusive) ++base_writes_;
  base_->start(piece.base);
}

void LayeredDisk::end(Flight& flight) {
  if (flight.exclusive) {
    std::erase(exclusive_, &flight);
    release_waiting();
  }
  if (flight.error == 0 && flight.exclusive && flight.request->durable) {
    flush_waiting_.push_back(&flight);
    return begin_round();
  }
  finish(flight, flight.error);
}

void LayeredDisk::finish(Flight& flight, int error) {
  flight.request->error = error;
  done_.push_back(flight.request);
  idle_flights_.push_back(&flight);
}

Result<void> LayeredDisk::submit() {
  std::lock_guard lock(mutex_);
  TRY(queue_->submit());
  return base_->submit();
}

LayeredDisk::Request* LayeredDisk::next_completion() {
  std::lock_guard lock(mutex_);
  if (std::exchange(resume_, false)) retry_stalled();
  for (;;) {
    run();
    if (!done_.empty()) {
      Request* request = done_.front();
      done_.pop_front();
      if (--in_flight_ == 0) buffers_.trim();
      return request;
    }
    if (IoQueue::Operation* operation = queue_->next_completion()) {
      complete(*operation);
    } else if (Request* request = base_->next_completion()) {
      auto* done = static_cast<BaseRequest*>(request);
      if (done->piece) {
        start_piece(*done->piece, advance(*done->piece));
      } else {
        if (done->error != 0) broken(base::Error(name_ + ": flush of the image", done->error));
        part_complete();
      }
    } else {
      return nullptr;
    }
  }
}

void LayeredDisk::complete(IoQueue::Operation& operation) {
  auto& own = static_cast<Operation&>(operation);
  if (own.kind == Operation::Kind::kSync) return advance(static_cast<LayerSync&>(own));
  auto& piece = static_cast<Piece&>(own);
  start_piece(piece, advance(piece));
}

unsigned LayeredDisk::in_flight() const {
  std::lock_guard lock(mutex_);
  return in_flight_;
}

void LayeredDisk::acknowledge() {
  queue_->event().consume();
  base_->acknowledge();
  wake_.consume();
}

// --- no space, and no durability ---

void LayeredDisk::full(const File& file) {
  if (std::exchange(full_told_, true)) return;
  std::string message = fmt::format(
      "disk {}: no space left in the store for what the guest writes ({})", name_, file.name());
  frozen_changed_.notify_all();
  if (on_full_) on_full_(message);
}

void LayeredDisk::resume() {
  std::lock_guard lock(mutex_);
  resume_ = true;
  wake_.signal();
}

void LayeredDisk::retry_stalled() {
  full_told_ = false;
  std::vector<Operation*> stalled;
  stalled.swap(stalled_);
  for (Operation* operation : stalled) {
    operation->result = -EAGAIN;
    complete(*operation);
  }
}

// What was written before a failed sync may be lost, whatever a later one says.
void LayeredDisk::broken(const base::Error& error) {
  if (broken_) return;
  base::log_error("disk {}: {}: the guest's writes fail from now on", name_, error.text());
  broken_ = error;
  frozen_changed_.notify_all();
}

// --- snapshots ---

std::shared_ptr<Layer> LayeredDisk::make_layer(LayerFiles files) const {
  return std::make_shared<Layer>(format_, std::move(files), blocks(), flush_);
}

Result<void> LayeredDisk::prepare_freeze(LayerFiles next) {
  if (next.log->alignment() != 1) {
    return base::fail(next.log->name() + " is not opened through the page cache");
  }
  auto layer = make_layer(std::move(next));
  std::lock_guard lock(mutex_);
  frozen_.reserve(frozen_.size() + 1);
  std::swap(next_, layer);
  return {};
}

Result<bool> LayeredDisk::lacks_layer() const {
  std::lock_guard lock(mutex_);
  TRY(can_be_frozen());
  return next_ == nullptr;
}

Result<void> LayeredDisk::can_be_frozen() const {
  if (broken_) return std::unexpected(*broken_);
  // Whoever takes snapshots also pauses machines: it is not to wait for space.
  if (full_told_ && !frozen_complete()) {
    return base::fail("disk " + name_ +
                      ": no space left in the store: make room, then resume the machine");
  }
  return {};
}

void LayeredDisk::freeze() {
  std::lock_guard lock(mutex_);
  assert(next_);
  if (top_) frozen_.push_back(std::move(top_));
  top_ = std::move(next_);
  base_writable_ = false;
}

bool LayeredDisk::frozen_complete() const {
  return (base_writable_ || base_writes_ == 0) &&
         std::ranges::all_of(frozen_, [](const auto& layer) { return layer->writes == 0; });
}

void LayeredDisk::tell_waiting() {
  if (frozen_complete()) frozen_changed_.notify_all();
}

Result<bool> LayeredDisk::wait_frozen(std::chrono::milliseconds timeout) {
  std::unique_lock lock(mutex_);
  frozen_changed_.wait_for(lock, timeout,
                           [this] { return broken_ || full_told_ || frozen_complete(); });
  TRY(can_be_frozen());
  if (!frozen_complete()) return false;
  if (identity_ || (base_writable_ && !read_only_)) return true;
  // Nobody writes to the base any more, so this thread may sync and read it as it likes.
  lock.unlock();
  int fd = base_->file().fd();
  Result<void> synced;
  if (!read_only_ && ::fdatasync(base_sync_.get()) < 0) {
    synced = base::fail_errno("disk " + name_ + ": sync");
  }
  Result<BaseIdentity> identity =
      synced ? identify_base(fd, size(), name_) : std::unexpected(synced.error());
  lock.lock();
  if (!synced) broken(synced.error());
  TRY(can_be_frozen());
  if (!identity) return std::unexpected(identity.error());
  identity_ = *identity;
  base_sync_ = {};
  // Other machines may read it from now on.
  TRY(base_->file().share());
  return true;
}

Result<LayeredDisk::Sealed> LayeredDisk::sealed() const {
  Sealed sealed;
  {
    std::lock_guard lock(mutex_);
    if (broken_) return std::unexpected(*broken_);
    if (!frozen_complete()) {
      return base::fail("disk " + name_ + ": its frozen layers are not complete");
    }
    sealed.layers = frozen_;
  }
  // Complete, so their maps change no more and the disk may go on meanwhile.
  const auto& layers = sealed.layers;
  for (Slot slot = 0; slot < layers.size(); ++slot) {
    layers[slot]->map().for_each([&](uint64_t block, PresenceMap::Block found) {
      bool zero = found.state == Presence::kZero;
      // In a newer one?
      for (Slot newer = slot + 1; newer < layers.size(); ++newer) {
        if (layers[newer]->map().get(block).state != Presence::kAbsent) return;
      }
      sealed.entries.push_back(
          {block, found.hash, zero ? kSlotZero : slot, zero ? 0 : block * kPageBytes});
    });
  }
  if (layers.size() > 1) std::ranges::sort(sealed.entries, {}, &PageEntry::page);
  return sealed;
}

void LayeredDisk::committed(std::shared_ptr<const CommittedBlocks> parent) {
  // Maps of large layers take their time to go away: not under the lock.
  std::vector<std::shared_ptr<Layer>> merged;
  std::lock_guard lock(mutex_);
  parent_.swap(parent);
  merged.assign(frozen_.begin(), frozen_.end());
  frozen_.clear();  // keeps its room: prepare_freeze() may have made it already
  ahead_.clear();
}

void LayeredDisk::commit_failed(const base::Error& error) {
  std::lock_guard lock(mutex_);
  bool lost =
      std::ranges::any_of(frozen_, [](const auto& layer) { return layer->sync_failed.load(); });
  if (lost) broken(error);
}

std::optional<BaseIdentity> LayeredDisk::base_identity() const {
  std::lock_guard lock(mutex_);
  return identity_;
}

}  // namespace snapshot
