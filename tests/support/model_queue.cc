#include <algorithm>
#include <cerrno>
#include <cstring>

#include "tests/support/model_file.h"

namespace test {

using base::Result;

namespace {

std::vector<std::byte> gather(std::span<const iovec> vectors) {
  std::vector<std::byte> data;
  for (const iovec& vector : vectors) {
    const auto* from = static_cast<const std::byte*>(vector.iov_base);
    data.insert(data.end(), from, from + vector.iov_len);
  }
  return data;
}

}  // namespace

ModelQueue::ModelQueue(ModelFileSystem& system, unsigned entries, base::EventFd event)
    : system_(system), entries_(entries), event_(std::move(event)) {
  std::lock_guard lock(system_.mutex_);
  if (system_.seed_) random_.emplace((*system_.seed_)++);
}

ModelQueue::~ModelQueue() {
  (void)submit();
  while (wait_completion() != nullptr) {
  }
}

Result<void> ModelQueue::prepare(Call call, Operation& operation, const snapshot::File& file,
                                 std::span<const iovec> vectors, uint64_t offset, uint64_t length) {
  if (prepared_.size() >= entries_) TRY(submit());
  operation.pending = true;
  Transfer& transfer = prepared_.emplace_back();
  transfer.call = call;
  transfer.operation = &operation;
  transfer.file = static_cast<const ModelFile*>(&file);
  transfer.vectors = vectors;
  transfer.offset = offset;
  transfer.length = length;
  return {};
}

Result<void> ModelQueue::readv(Operation& operation, snapshot::File& file,
                               std::span<const iovec> vectors, uint64_t offset) {
  return prepare(Call::kRead, operation, file, vectors, offset, 0);
}

Result<void> ModelQueue::writev(Operation& operation, snapshot::File& file,
                                std::span<const iovec> vectors, uint64_t offset) {
  return prepare(Call::kWrite, operation, file, vectors, offset, 0);
}

Result<void> ModelQueue::sync(Operation& operation, snapshot::File& file) {
  return prepare(Call::kSync, operation, file, {}, 0, 0);
}

Result<void> ModelQueue::allocate(Operation& operation, snapshot::File& file, uint64_t offset,
                                  uint64_t length) {
  return prepare(Call::kAllocate, operation, file, {}, offset, length);
}

Result<void> ModelQueue::punch(Operation& operation, snapshot::File& file, uint64_t offset,
                               uint64_t length) {
  return prepare(Call::kPunch, operation, file, {}, offset, length);
}

Result<void> ModelQueue::submit() {
  std::lock_guard lock(system_.mutex_);
  for (Transfer& transfer : prepared_) {
    start(transfer);
    running_.push_back(std::move(transfer));
  }
  prepared_.clear();
  if (!running_.empty()) event_.signal();
  return {};
}

// From here on the transfer may reach the disk.
void ModelQueue::start(Transfer& transfer) {
  const ModelFile& file = *transfer.file;
  transfer.fault = system_.fault(transfer.call, file.name_);
  if (transfer.call == Call::kRead || transfer.call == Call::kAllocate) return;
  if (transfer.fault && transfer.fault->not_made) return;
  auto kind = transfer.call == Call::kWrite   ? Event::Kind::kWrite
              : transfer.call == Call::kPunch ? Event::Kind::kPunch
                                              : Event::Kind::kSync;
  Event& event = system_.record(kind, file.name_);
  transfer.serial = event.serial;
  event.inode = file.inode_;
  event.complete = false;
  event.offset = transfer.offset;
  event.length = transfer.length;
  if (transfer.call == Call::kSync) transfer.to_sync = system_.contents(file.inode_);
  if (transfer.call != Call::kWrite) return;
  auto data = gather(transfer.vectors);
  if (transfer.fault && transfer.fault->short_write) data.resize(data.size() / 2);
  event.length = data.size();
  event.data = transfer.data = std::make_shared<std::vector<std::byte>>(std::move(data));
}

// Takes effect for readers; the result as io_uring gives it.
int ModelQueue::finish(Transfer& transfer) {
  const ModelFile& file = *transfer.file;
  if (transfer.fault && transfer.fault->not_made) return -transfer.fault->error;
  int result = 0;
  if (!file.writable_ && transfer.call != Call::kRead && transfer.call != Call::kSync) {
    result = -EBADF;
  } else if (transfer.call == Call::kSync) {
    result = -file.sync_error(transfer.fault);
    if (result == 0) result = finish_change(transfer);
  } else if (transfer.fault && !(transfer.call == Call::kWrite && transfer.fault->short_write)) {
    result = -transfer.fault->error;
  } else {
    result = transfer.call == Call::kRead ? finish_read(transfer) : finish_change(transfer);
  }
  if (transfer.call == Call::kRead || transfer.call == Call::kAllocate) return result;
  system_.record(Event::Kind::kComplete, file.name_).of = transfer.serial;
  if (result < 0) system_.event(transfer.serial).failed = true;
  return result;
}

int ModelQueue::finish_read(Transfer& transfer) {
  const ModelFile& file = *transfer.file;
  const Contents& contents = system_.contents(file.inode_);
  uint64_t done = 0;
  for (const iovec& vector : transfer.vectors) {
    uint64_t at = transfer.offset + done;
    if (!file.check_aligned(at, vector.iov_base, vector.iov_len)) return -EINVAL;
    uint64_t left = at < contents.size() ? contents.size() - at : 0;
    uint64_t bytes = std::min<uint64_t>(left, vector.iov_len);
    contents.read(at, {static_cast<std::byte*>(vector.iov_base), bytes});
    done += bytes;
    if (bytes < vector.iov_len) break;
  }
  return static_cast<int>(done);
}

int ModelQueue::finish_change(Transfer& transfer) {
  const ModelFile& file = *transfer.file;
  Contents& contents = system_.contents(file.inode_);
  if (transfer.call == Call::kSync) {
    system_.synced_[file.inode_] = std::move(transfer.to_sync);
    return 0;
  }
  if (transfer.call == Call::kPunch) {
    contents.punch(transfer.offset, transfer.length);
    return 0;
  }
  if (transfer.call == Call::kAllocate) {
    auto space = system_.reserve(file.inode_, file.name_, transfer.offset, transfer.length);
    if (!space) return -space.error().os_error();
    contents.allocate(transfer.offset, transfer.length);
    return 0;
  }
  auto now = gather(transfer.vectors);
  now.resize(transfer.data->size());
  if (now != *transfer.data) system_.misuse_ = file.name_ + ": memory changed during a write";
  for (uint64_t at = transfer.offset; const iovec& vector : transfer.vectors) {
    if (!file.check_aligned(at, vector.iov_base, vector.iov_len)) return -EINVAL;
    at += vector.iov_len;
  }
  auto written = system_.write(file.inode_, file.name_, transfer.offset, *transfer.data);
  return written ? static_cast<int>(transfer.data->size()) : -written.error().os_error();
}

snapshot::IoQueue::Operation* ModelQueue::complete_one() {
  if (running_.empty()) return nullptr;
  size_t chosen = random_ ? (*random_)() % running_.size() : 0;
  Transfer transfer = std::move(running_[chosen]);
  running_.erase(running_.begin() + static_cast<ptrdiff_t>(chosen));
  transfer.operation->result = finish(transfer);
  transfer.operation->pending = false;
  return transfer.operation;
}

snapshot::IoQueue::Operation* ModelQueue::next_completion() {
  std::lock_guard lock(system_.mutex_);
  if (running_.empty()) return nullptr;
  // Held back: announced again, so that nobody waits for ever.
  if (random_ && (*random_)() % 2 == 0) {
    event_.signal();
    return nullptr;
  }
  return complete_one();
}

snapshot::IoQueue::Operation* ModelQueue::wait_completion() {
  if (running_.empty()) (void)submit();
  std::lock_guard lock(system_.mutex_);
  return complete_one();
}

}  // namespace test
