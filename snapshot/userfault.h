// A userfaultfd over guest memory (userfaultfd(2), MISSING mode): a thread that touches a page with
// no memory behind it waits until somebody provides the page. vCPUs fault inside the kernel, so the
// user-mode-only kind is not enough.
//
// Owned by the pager; copy() and wake() may be called from several threads.
#pragma once

#include <cstddef>
#include <cstdint>

#include "vmm/base/fd.h"
#include "vmm/base/result.h"

namespace snapshot {

class Userfault {
 public:
  struct Event {
    enum class Kind { kNone, kMissing, kRemoved } kind = Kind::kNone;
    std::byte* address = nullptr;  // page-aligned
    uint64_t length = 0;           // bytes, of kRemoved
  };

  // The error says what to change on this host where the kernel refuses.
  static base::Result<Userfault> create();
  base::Result<void> watch(std::byte* start, uint64_t bytes);
  // Pages without memory are plain zero pages from then on, huge ones where the host gives them;
  // waiting threads go on.
  base::Result<void> unwatch(std::byte* start, uint64_t bytes);

  int fd() const { return fd_.get(); }
  // The next event; kNone where there is none now.
  base::Result<Event> next() const;

  // Provides pages and says how many bytes are there now, from `to` on; fewer than asked for: the
  // memory map is changing, look again. Pages that are there already are left alone, and whoever
  // waits for them is woken.
  base::Result<uint64_t> copy(std::byte* to, const std::byte* from, uint64_t bytes) const;
  // Who waits in [start, start + bytes) looks again, watched or not.
  base::Result<void> wake(std::byte* start, uint64_t bytes) const;

 private:
  explicit Userfault(base::Fd fd) : fd_(std::move(fd)) {}
  base::Fd fd_;
};

}  // namespace snapshot
