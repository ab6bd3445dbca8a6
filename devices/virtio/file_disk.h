// A disk in a file or on a block device, by io_uring straight from and to guest memory.
//
// Owned and used as disk.h says.
#pragma once

#include <deque>
#include <memory>
#include <vector>

#include "devices/virtio/block_file.h"
#include "devices/virtio/block_transfer.h"
#include "devices/virtio/disk.h"
#include "vmm/base/io_uring.h"
#include "vmm/base/mapping.h"

namespace virtio {

class FileDisk final : public Disk {
 public:
  static base::Result<std::unique_ptr<FileDisk>> create(BlockFile file);

  uint64_t size() const override { return file_.size(); }
  bool read_only() const override { return file_.read_only(); }
  bool can_discard() const override { return file_.can_punch(); }
  void start(Request& request) override;
  base::Result<void> submit() override { return ring_->submit(); }
  Request* next_completion() override;
  unsigned in_flight() const override { return in_flight_; }
  int event_fd() const override { return ring_->event().fd(); }
  void acknowledge() override { ring_->event().consume(); }
  void wake() override { ring_->event().signal(); }

  BlockFile& file() { return file_; }

 private:
  // What is done about one request; has at most one operation in flight, the next one is prepared
  // when that is complete.
  struct Flight : base::IoUring::Operation {
    enum class Step { kTransfer, kAllocate, kZeroes, kSync };
    Request* request = nullptr;
    Step step = Step::kTransfer;
    BlockTransfer transfer;
    size_t range = 0;     // of the request's ranges, the one being worked on
    uint64_t zeroed = 0;  // bytes of that range, where zeroes are written
    iovec zeroes{};
    bool durable = false;  // nothing left to sync
  };

  FileDisk(BlockFile file, base::Mapping zeroes, std::unique_ptr<base::IoUring> ring);
  void advance(Flight& flight);
  base::Result<bool> prepare(Flight& flight);
  base::Result<void> prepare_transfer(Flight& flight);
  base::Result<void> prepare_range(Flight& flight);
  void complete(Flight& flight);
  void fail_step(Flight& flight, int os_error);
  void finish(Flight& flight, int error);

  BlockFile file_;
  base::Mapping zeroes_;  // never written: its pages are the kernel's zero page
  // What the first refusal showed the file cannot do.
  bool punch_works_ = true;
  bool zero_range_works_ = true;
  unsigned in_flight_ = 0;
  std::deque<Request*> done_;
  std::vector<std::unique_ptr<Flight>> flights_;  // all there ever were
  std::vector<Flight*> idle_;
  std::unique_ptr<base::IoUring> ring_;  // last: it waits for what uses the rest
};

}  // namespace virtio
