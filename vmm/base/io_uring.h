// An io_uring: file operations that run while their owner does something else, and one event
// descriptor that says when some are complete. Everything prepared between two submit() calls
// reaches the kernel in one system call.
//
// Owned by one device (or one worker), used by one thread at a time.
#pragma once

#include <liburing.h>
#include <sys/uio.h>

#include <cassert>
#include <cstdint>
#include <memory>
#include <span>

#include "vmm/base/fd.h"
#include "vmm/base/result.h"

namespace base {

class IoUring {
 public:
  // What an owner derives its requests from. The operation, its vectors and the memory they name
  // belong to the kernel from prepare…() until next_completion() hands the operation back: they
  // stay where they are.
  class Operation {
   public:
    Operation() = default;
    Operation(const Operation&) = delete;
    Operation& operator=(const Operation&) = delete;
    ~Operation() { assert(!pending_); }

    bool pending() const { return pending_; }
    // Bytes transferred, or -errno. Fewer bytes than asked for is no error.
    int result() const { return result_; }

   private:
    friend class IoUring;
    bool pending_ = false;
    int result_ = 0;
  };

  // `entries`: how many operations may be prepared between two submit() calls. More may be in
  // flight: the kernel keeps completions that find their ring full.
  static Result<std::unique_ptr<IoUring>> create(unsigned entries);
  IoUring(const IoUring&) = delete;
  IoUring& operator=(const IoUring&) = delete;
  // Waits for every operation in flight, so that no transfer outlives its memory.
  ~IoUring();

  // Each fails only where `entries` operations are prepared and the kernel takes none of them.
  Result<void> prepare_readv(Operation& operation, int fd, std::span<const iovec> into,
                             uint64_t offset);
  Result<void> prepare_writev(Operation& operation, int fd, std::span<const iovec> from,
                              uint64_t offset);
  Result<void> prepare_fdatasync(Operation& operation, int fd);
  // `mode` as for fallocate(2).
  Result<void> prepare_fallocate(Operation& operation, int fd, int mode, uint64_t offset,
                                 uint64_t length);

  // Hands over what was prepared. Where the kernel cannot take everything now, the event descriptor
  // becomes ready, so that its owner comes back and submits again.
  Result<void> submit();
  // The next operation that is complete, its result set; null where there is none.
  Operation* next_completion();
  // Submits what was prepared and waits until an operation is complete; null where none is in
  // flight, or where the kernel cannot be waited for.
  Operation* wait_completion();

  // Ready while completions wait that were not announced before: clear it with consume(), then take
  // all completions, then submit().
  EventFd& event() { return event_; }
  // Operations prepared or submitted, and not handed back.
  unsigned in_flight() const { return in_flight_; }

 private:
  explicit IoUring(EventFd event) : event_(std::move(event)) {}
  Result<void> check_features();
  Result<io_uring_sqe*> free_entry();
  void take(Operation& operation, io_uring_sqe* entry);

  EventFd event_;
  io_uring ring_{};
  bool created_ = false;
  unsigned in_flight_ = 0;
};

}  // namespace base
