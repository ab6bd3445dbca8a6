// What a block device's requests are carried out by: a file (file_disk.h) or the layers of a
// snapshot (snapshot/disk/layered_disk.h). Any number of requests in flight, completed in any
// order.
//
// Owned by the block device and used under its transport's lock. No function waits for a transfer.
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <vector>

#include "vmm/base/result.h"

namespace virtio {

inline constexpr uint64_t kSectorBytes = 512;  // the unit of virtio block requests, always

struct DiskRange {
  uint64_t offset = 0, length = 0;  // bytes on the disk, whole sectors
  bool unmap = false;               // write zeroes: the space may be given back
};

class Disk {
 public:
  // Belongs to the disk, with the memory it names, from start() until next_completion() hands it
  // back; whoever makes requests derives from it. Lies on the disk, in whole sectors.
  class Request {
   public:
    enum class Type { kRead, kWrite, kFlush, kDiscard, kWriteZeroes };

    Request() = default;
    Request(const Request&) = delete;
    Request& operator=(const Request&) = delete;

    Type type = Type::kFlush;
    bool durable = false;  // complete when it would survive a power cut, not before
    // Reads and writes: bytes on the disk, and where they go or come from, at any address and in
    // pieces of any size; the guest may change them meanwhile. The disk may use up the vector.
    uint64_t offset = 0;
    std::vector<iovec> memory;
    std::vector<DiskRange> ranges;  // discard and write zeroes
    // How it ended: 0 or an errno; EOPNOTSUPP where the disk cannot do such a thing.
    int error = 0;
  };

  Disk() = default;
  Disk(const Disk&) = delete;
  Disk& operator=(const Disk&) = delete;
  virtual ~Disk() = default;  // waits for what the kernel still has; requests are not handed back

  virtual uint64_t size() const = 0;  // bytes, whole sectors
  virtual bool read_only() const = 0;
  virtual bool can_discard() const = 0;

  // Takes a request. A flush covers the requests handed back before it was started.
  virtual void start(Request& request) = 0;
  // Has the kernel begin what start() and next_completion() prepared.
  virtual base::Result<void> submit() = 0;
  // A request that is complete, null where none is. May prepare more: submit() afterwards.
  virtual Request* next_completion() = 0;
  // Requests taken and not handed back.
  virtual unsigned in_flight() const = 0;

  // Readable while completions wait that were not announced before: acknowledge(), then take all
  // completions, then submit().
  virtual int event_fd() const = 0;
  virtual void acknowledge() = 0;
  // Makes event_fd() readable.
  virtual void wake() = 0;
};

}  // namespace virtio
