#include "tests/payload/keeping_disk.h"

#include <utility>

namespace payload_test {

namespace {
constexpr size_t kMostFirst = 256;
}  // namespace

bool KeepingDisk::keep(unsigned count, std::chrono::seconds limit) {
  std::unique_lock lock(mutex_);
  to_keep_ = count;
  return changed_.wait_for(lock, limit, [&] { return to_keep_ == 0 && marked_.empty(); });
}

bool KeepingDisk::let_go(std::chrono::seconds limit) {
  std::unique_lock lock(mutex_);
  let_go_ = true;
  beneath_->wake();
  return changed_.wait_for(lock, limit, [&] { return !let_go_; });
}

std::vector<KeepingDisk::Read> KeepingDisk::reads_in_flight() const {
  std::lock_guard lock(mutex_);
  std::vector<Read> all;
  for (const auto& [request, read] : reads_) all.push_back(read);
  return all;
}

std::vector<KeepingDisk::Read> KeepingDisk::first_reads(size_t count, std::chrono::seconds limit) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, limit, [&] { return first_.size() >= count; });
  return {first_.begin(), first_.begin() + static_cast<ptrdiff_t>(std::min(count, first_.size()))};
}

void KeepingDisk::start(Request& request) {
  std::lock_guard lock(mutex_);
  if (request.type == Request::Type::kRead) {
    reads_[&request] = {request.offset, request.memory};
    if (first_.size() < kMostFirst) first_.push_back(reads_[&request]);
    const bool keep = to_keep_ > 0;
    if (keep) --to_keep_;
    changed_.notify_all();
    if (keep && to_keep_ % 2 == 0) {
      before_.push_back(&request);
      return;
    }
    if (keep) marked_.insert(&request);
  }
  beneath_->start(request);
}

KeepingDisk::Request* KeepingDisk::next_completion() {
  std::lock_guard lock(mutex_);
  if (std::exchange(let_go_, false)) {
    for (Request* request : before_) beneath_->start(*request);
    before_.clear();
    ready_.insert(ready_.end(), after_.begin(), after_.end());
    after_.clear();
    changed_.notify_all();
  }
  Request* complete = nullptr;
  if (!ready_.empty()) {
    complete = ready_.back();
    ready_.pop_back();
  }
  while (complete == nullptr) {
    complete = beneath_->next_completion();
    if (complete == nullptr) return nullptr;
    if (marked_.erase(complete) == 0) break;
    after_.push_back(std::exchange(complete, nullptr));
    changed_.notify_all();
  }
  reads_.erase(complete);
  return complete;
}

unsigned KeepingDisk::in_flight() const {
  std::lock_guard lock(mutex_);
  return beneath_->in_flight() +
         static_cast<unsigned>(before_.size() + after_.size() + ready_.size());
}

}  // namespace payload_test
