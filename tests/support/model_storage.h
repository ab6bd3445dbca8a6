// A file system in memory behind snapshot::Storage that records every operation in order, fails
// those a test chooses, and finishes asynchronous transfers late and out of order where a test asks
// for it. What a power cut may leave of a recording: tests/support/crash_states.h.
//
// The file system outlives the Storages, files and queues made from it. May be used from several
// threads, as the real one; the order is then theirs.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "snapshot/storage.h"
#include "tests/support/disk_image.h"
#include "tests/support/recording.h"

namespace test {

// What a fault can be injected into.
enum class Call {
  kCreate,
  kOpen,
  kRead,
  kWrite,
  kTruncate,
  kAllocate,
  kPunch,
  kSync,
  kRename,
  kRemove,
  kMakeDirectory,
  kList,
  kSyncDirectory,
};
const char* call_name(Call call);

struct Fault {
  int error = 0;  // an errno
  // A write transfers half of its bytes first: then a queue's operation says so and carries no
  // error, write() has the error.
  bool short_write = false;
  // A failing sync also drops what was not synced from what readers see, as some file systems do.
  bool drop_unsynced = false;
  // The call is not made at all: its process has been killed.
  bool not_made = false;
};
struct CallSite {
  uint64_t number = 0;  // calls are counted from 0
  Call call = Call::kCreate;
  std::string name;  // of the file; the old one for a rename
};
using FaultPlan = std::function<std::optional<Fault>(const CallSite&)>;

class ModelFileSystem {
 public:
  explicit ModelFileSystem(DiskImage image = {}) : image_(image), start_(std::move(image)) {}
  ModelFileSystem(const ModelFileSystem&) = delete;
  ModelFileSystem& operator=(const ModelFileSystem&) = delete;

  std::unique_ptr<snapshot::Storage> storage();

  // What readers see now: all that is left after kill -9.
  DiskImage image() const;
  // What there was at the start, all of it durable, and what happened since.
  const DiskImage& start() const { return start_; }
  Recording recording() const;
  void mark(std::string text);

  // Asked at every call; a fault it gives is that call's result.
  void set_faults(FaultPlan plan);
  uint64_t calls() const;
  // Transfers of queues finish at random times in random order. Without it: at once, in order.
  void set_schedule(uint64_t seed);
  // What kDirect files say of their alignment, and insist on.
  void set_alignment(uint32_t bytes);
  // Space in the file system; writing more than that is ENOSPC.
  void set_capacity(uint64_t bytes);
  // Something a caller may not do, "" while there is none: memory that changed while a queue's
  // write was in flight, a transfer that is not aligned.
  std::string misuse() const;

 private:
  friend class ModelStorage;
  friend class ModelFile;
  friend class ModelQueue;
  using Lock = snapshot::File::Lock;

  // All of these with the mutex held.
  std::optional<Fault> fault(Call call, const std::string& name);
  Event& record(Event::Kind kind, const std::string& text);
  base::Result<void> write(Inode inode, const std::string& name, uint64_t offset,
                           std::span<const std::byte> from);
  base::Result<void> reserve(Inode inode, const std::string& name, uint64_t offset,
                             uint64_t length);
  base::Result<void> allocate(Inode inode, const std::string& name, uint64_t offset,
                              uint64_t length);
  base::Result<void> punch(Inode inode, const std::string& name, uint64_t offset, uint64_t length);
  base::Result<void> add_entry(Event::Kind kind, const std::string& name);
  base::Result<void> remove_entry(const std::string& name);
  void unlinked(Inode inode);
  void closed(Inode inode);
  Event& event(uint64_t serial);
  Contents& contents(Inode inode) { return image_.nodes.at(inode).contents; }

  mutable std::mutex mutex_;
  DiskImage image_;
  const DiskImage start_;
  Recording recording_;
  FaultPlan plan_;
  uint64_t calls_ = 0;
  uint64_t next_serial_ = 0;
  std::optional<uint64_t> seed_;
  uint32_t alignment_ = 1;
  uint64_t capacity_ = uint64_t{1} << 50;
  std::string misuse_;
  std::map<Inode, Contents> synced_;  // as of the last sync, where there was one
  std::map<Inode, uint64_t> failed_syncs_;
  std::map<Inode, unsigned> open_files_;  // by how many file objects
  std::set<Inode> unlinked_;
  std::multimap<Inode, std::pair<const void*, Lock>> locks_;
};

}  // namespace test
