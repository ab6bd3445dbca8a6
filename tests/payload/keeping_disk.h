// A disk that keeps reads in flight for as long as a test wants: every second one before it is
// begun, the others when their data is in the guest's memory already and nobody has heard of it.
// All the rest goes straight to the disk beneath.
//
// Owned by the block device, as disk.h says; what has a comment here is the test's, on any thread.
#pragma once

#include <chrono>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <vector>

#include "devices/virtio/disk.h"

namespace payload_test {

class KeepingDisk final : public virtio::Disk {
 public:
  struct Read {
    uint64_t offset = 0;  // on the disk
    std::vector<iovec> memory;
  };

  explicit KeepingDisk(std::unique_ptr<virtio::Disk> beneath) : beneath_(std::move(beneath)) {}

  // The next `count` reads are kept, and waited for; false where they do not come.
  bool keep(unsigned count, std::chrono::seconds limit = std::chrono::seconds(120));
  // Those that are kept go on; false where the device does not take notice.
  bool let_go(std::chrono::seconds limit = std::chrono::seconds(120));
  // Reads that were taken and not handed back: those that are kept, and others. Holds for as long
  // as the device is frozen.
  std::vector<Read> reads_in_flight() const;
  // The first `count` reads there ever were, waited for; fewer where they do not come.
  std::vector<Read> first_reads(size_t count,
                                std::chrono::seconds limit = std::chrono::seconds(120));

  uint64_t size() const override { return beneath_->size(); }
  bool read_only() const override { return beneath_->read_only(); }
  bool can_discard() const override { return beneath_->can_discard(); }
  void start(Request& request) override;
  base::Result<void> submit() override { return beneath_->submit(); }
  Request* next_completion() override;
  unsigned in_flight() const override;
  int event_fd() const override { return beneath_->event_fd(); }
  void acknowledge() override { beneath_->acknowledge(); }
  void wake() override { beneath_->wake(); }

 private:
  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  std::map<const Request*, Read> reads_;  // in flight
  std::vector<Read> first_;
  unsigned to_keep_ = 0;       // still to come
  bool let_go_ = false;        // what is kept now
  std::set<Request*> marked_;  // to be kept when it is complete
  std::vector<Request*> before_, after_, ready_;
  const std::unique_ptr<virtio::Disk> beneath_;
};

}  // namespace payload_test
