// What a disk may hold after a power cut: a recording (recording.h) replayed into a model that
// knows what is durable.
//
// A sync makes durable what was complete before it was submitted. Of the rest, any subset survives:
// writes in sectors of 512 bytes, a file's size apart from its data, each change of a directory's
// entries by itself until the directory is synced. A rename within one directory is atomic; from
// one to another it is a removal and an insertion, so that both names, either or none may be there.
// That is more than any one file system does, and everything that POSIX allows of our calls.
#pragma once

#include <cstdint>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "tests/support/disk_image.h"
#include "tests/support/recording.h"

namespace test {

class CrashReplay {
 public:
  explicit CrashReplay(DiskImage start) : durable_(std::move(start)) {}

  // The next event of the recording happens.
  void apply(const Event& event);

  // A change that may or may not survive: `sectors` parts of it by themselves.
  struct Pending {
    std::string text;
    size_t sectors = 1;
  };
  std::vector<Pending> pending() const;

  // Does this sector of this pending change survive?
  using Survives = std::function<bool(size_t change, size_t sector)>;
  DiskImage image(const Survives& survives) const;

 private:
  struct Change {
    enum class Kind { kData, kSize, kTruncate, kPunch, kInsert, kRemove, kMove };
    Kind kind = Kind::kData;
    uint64_t serial = 0;
    Inode object = 0;       // the file or directory whose sync makes it durable
    bool complete = false;  // a sync submitted from now on covers it
    bool lost = false;      // no sync covers it any more
    bool durable = false;
    Event event;
  };
  struct Syncing {
    uint64_t serial = 0;
    bool failed = false;
    std::vector<uint64_t> covered;  // serials
    Inode object = 0;
  };

  void add(Change::Kind kind, Inode object, const Event& event);
  Syncing start_sync(const Event& event) const;
  void finish_sync(const Syncing& syncing);
  void fold();
  static size_t sectors(const Change& change);
  static void perform(DiskImage& image, const Change& change,
                      const std::function<bool(size_t sector)>& survives);

  DiskImage durable_;  // with every change before those of changes_
  std::vector<Change> changes_;
  std::vector<Syncing> syncing_;
};

// Which states of each crash point to look at: none and all of the pending changes, each missing,
// each alone, torn ones, and `samples` at random.
struct CrashPlan {
  unsigned samples = 8;
  uint64_t seed = 1;
  // Each by itself: many where much is written between two syncs.
  bool each = true;
};

// Gives each state of the replay's present moment, and what survived in words; false ends it.
using CrashVisit = std::function<bool(const DiskImage&, const std::string& what)>;
bool visit_crash_states(const CrashReplay& replay, const CrashPlan& plan, const CrashVisit& visit);

}  // namespace test
