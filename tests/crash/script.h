// A script of store operations on a model file system: records what happens, and for each moment
// what the store owes.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tests/crash/disk.h"
#include "tests/crash/guest.h"
#include "tests/crash/promises.h"
#include "tests/support/crash_states.h"
#include "tests/support/model_storage.h"

namespace test {

struct Recorded {
  DiskImage start;
  Recording recording;
  std::vector<Promises> promises;
};

class Script {
 public:
  // `seed` orders what runs at the same time.
  explicit Script(uint64_t seed);

  void create_store();
  // A new machine, with a disk where `disk_blocks` is not 0; or one that goes on from a snapshot.
  struct Machine {
    std::unique_ptr<snapshot::Branch> branch;
    std::unique_ptr<GuestDisk> disk;
    Guest guest;
  };
  Machine boot(uint64_t ram_pages, uint64_t disk_blocks = 0);
  Machine restore(const snapshot::Id& id);
  // Of the guest's disk; from the machine's first freeze on.
  void write(Machine& machine, uint64_t block, uint64_t value);
  void discard(Machine& machine, uint64_t block, uint64_t count);
  void flush(Machine& machine);
  // `meanwhile`: what the guest does with its disk after the freeze, flushed at the end.
  snapshot::Id take(Machine& machine, snapshot::Kind kind,
                    const std::function<void()>& meanwhile = {});
  // The same with faults; false where it went well nevertheless.
  bool take_failing(Machine& machine, snapshot::Kind kind, FaultPlan plan);
  void merge(Machine& machine);
  void stop(Machine& machine);
  void recover();
  void prune(const std::vector<snapshot::Id>& ids);
  snapshot::Store& store() { return *store_; }
  ModelFileSystem& system() { return system_; }
  Recorded recorded() const { return {system_.start(), system_.recording(), promises_}; }

 private:
  void committed(const Machine& machine, const snapshot::Id& id, const Content& content);
  std::vector<std::set<uint64_t>>& blocks(const Machine& machine);
  void change_blocks(const Machine& machine, uint64_t block, uint64_t count, uint64_t value);
  // From here on these are owed.
  void promise(const std::string& what);

  ModelFileSystem system_;
  std::unique_ptr<snapshot::Store> store_;
  Promises now_;
  std::vector<Promises> promises_;
};

// A failing crash state: where, what survived, what it broke.
struct CrashFailure {
  std::string text;
  uint64_t states = 0;  // looked at
};
// Looks at every crash point of [from, end) of the recording; empty text: every promise is kept in
// every state.
CrashFailure find_crash_failure(const Recorded& recorded, const CrashPlan& plan, size_t from = 0);

}  // namespace test
