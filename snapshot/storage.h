// All file-system access of the snapshot engine, asynchronous writes included, behind one
// interface: what is durable after a power cut depends on the order of exactly these calls, so the
// crash tests put a recorder and a model file system in their place
// (tests/support/model_storage.h).
//
// Names are relative to the store's directory ("packs/0123…"), use '/' and never "..".
// A Storage and its files may be used from several threads; a queue belongs to one thread.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "vmm/base/fd.h"
#include "vmm/base/result.h"

namespace snapshot {

// An open regular file of the store.
class File {
 public:
  virtual ~File() = default;
  virtual const std::string& name() const = 0;
  virtual base::Result<uint64_t> size() const = 0;
  // What it takes of the disk: holes are nothing.
  virtual base::Result<uint64_t> disk_bytes() const { return size(); }
  // CLOCK_REALTIME, ns.
  virtual base::Result<uint64_t> modified_ns() const { return base::fail("nobody knows when"); }
  // Reads all of `into`; the end of the file before that is an error.
  virtual base::Result<void> read(uint64_t offset, std::span<std::byte> into) const = 0;
  // Advice: the disk may begin to read this.
  virtual void will_need(uint64_t /*offset*/, uint64_t /*length*/) const {}
  virtual base::Result<void> write(uint64_t offset, std::span<const std::byte> from) = 0;
  virtual base::Result<void> truncate(uint64_t size) = 0;
  // fallocate(2) modes: space for [offset, offset + length), size kept; a hole in its place.
  virtual base::Result<void> allocate(uint64_t offset, uint64_t length) = 0;
  virtual base::Result<void> punch(uint64_t offset, uint64_t length) = 0;
  // fdatasync(2): covers the writes that were complete before the call. Never to be retried.
  virtual base::Result<void> sync() = 0;
  // An OFD lock over the whole file, held until unlock() or the end of the file object; false where
  // somebody else holds one that excludes it.
  enum class Lock { kShared, kExclusive };
  virtual base::Result<bool> try_lock(Lock) = 0;
  virtual base::Result<void> unlock() = 0;
  // Must offset, length and memory be multiples of this? 1 where anything goes, 4096 at most.
  virtual uint32_t alignment() const = 0;
};

// Lengthens a file of `from` bytes, with space on the disk. Writes inside a file's size run side by
// side; those past it ext4 does one after the other, each waiting for the disk.
inline base::Result<void> extend(File& file, uint64_t from, uint64_t to) {
  TRY(file.allocate(from, to - from));
  return file.truncate(to);
}

// Transfers that run while their owner does something else; used by one thread at a time.
class IoQueue {
 public:
  // Belongs to the queue from the call that takes it until next_completion() hands it back; so do
  // the vectors and the memory they name.
  class Operation {
   public:
    Operation() = default;
    Operation(const Operation&) = delete;
    Operation& operator=(const Operation&) = delete;
    // Bytes transferred (fewer than asked for is no error), or -errno.
    int result = 0;
    bool pending = false;
  };

  virtual ~IoQueue() = default;  // waits for everything in flight
  virtual base::Result<void> readv(Operation&, File&, std::span<const iovec>, uint64_t offset) = 0;
  virtual base::Result<void> writev(Operation&, File&, std::span<const iovec>, uint64_t offset) = 0;
  virtual base::Result<void> sync(Operation&, File&) = 0;  // fdatasync
  virtual base::Result<void> allocate(Operation&, File&, uint64_t offset, uint64_t length) = 0;
  virtual base::Result<void> punch(Operation&, File&, uint64_t offset, uint64_t length) = 0;
  // Hands over what was prepared; never waits for a transfer.
  virtual base::Result<void> submit() = 0;
  // The next operation that is complete; null where there is none now.
  virtual Operation* next_completion() = 0;
  // Waits until one is complete, then as next_completion(); null where nothing is in flight.
  virtual Operation* wait_completion() = 0;
  // Ready while completions wait that were not announced before (as base::IoUring::event()).
  virtual base::EventFd& event() = 0;
  virtual unsigned in_flight() const = 0;
};

class Storage {
 public:
  enum class Access { kRead, kWrite };  // kWrite: for reading as well
  // kDirect: past the host's page cache where the file system can (File::alignment() says).
  enum class Caching { kCached, kDirect };

  virtual ~Storage() = default;
  // For messages: the store's path.
  virtual const std::string& path() const = 0;
  // A new file, mode 0600; fails with EEXIST where the name is taken.
  virtual base::Result<std::unique_ptr<File>> create(const std::string& name, Caching) = 0;
  // A regular file, never through a symbolic link.
  virtual base::Result<std::unique_ptr<File>> open(const std::string& name, Access, Caching) = 0;
  // Replaces `to` where it exists.
  virtual base::Result<void> rename(const std::string& from, const std::string& to) = 0;
  virtual base::Result<void> remove(const std::string& name) = 0;
  virtual base::Result<void> make_directory(const std::string& name) = 0;  // EEXIST is no error
  virtual base::Result<std::vector<std::string>> list(const std::string& directory) = 0;  // sorted
  virtual base::Result<bool> exists(const std::string& name) = 0;
  // Makes the directory's entries durable.
  virtual base::Result<void> sync_directory(const std::string& name) = 0;
  virtual base::Result<uint64_t> free_bytes() = 0;
  virtual base::Result<std::unique_ptr<IoQueue>> make_queue(unsigned entries) = 0;
};

// The real one. `path` is a directory that exists.
base::Result<std::unique_ptr<Storage>> open_storage(const std::string& path);

}  // namespace snapshot
