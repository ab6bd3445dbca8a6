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
  // `base`: the identity of its image, as its snapshots will say.
  Machine boot(uint64_t ram_pages, uint64_t disk_blocks = 0, const std::string& base = "image");
  Machine restore(const snapshot::Id& id);
  base::Result<Machine> try_restore(const snapshot::Id& id);
  // Of the guest's disk; from the machine's first freeze on.
  void write(Machine& machine, uint64_t block, uint64_t value);
  void discard(Machine& machine, uint64_t block, uint64_t count);
  void flush(Machine& machine);
  // False where the guest is told that it failed.
  bool try_flush(Machine& machine);
  // `meanwhile`: what the guest does with its disk after the freeze, flushed at the end.
  snapshot::Id take(Machine& machine, snapshot::Kind kind,
                    const std::function<void()>& meanwhile = {});
  base::Result<snapshot::Id> try_take(Machine& machine, snapshot::Kind kind);
  void merge(Machine& machine);
  void stop(Machine& machine);
  void recover();
  void prune(const std::vector<snapshot::Id>& ids);
  // After an error any of them may be gone.
  base::Result<snapshot::PruneReport> try_prune(const std::vector<snapshot::Id>& ids);
  snapshot::Store& store() { return *store_; }
  ModelFileSystem& system() { return system_; }
  // What the store owes now.
  const Promises& promises() const { return now_; }
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
// Looks at every crash point of [from, end) of a recording: `check` says what is wrong with what a
// crash left, "" for nothing. `step` is the number that the last mark before it begins with.
using StateCheck = std::function<std::string(const DiskImage& image, size_t step)>;
CrashFailure find_failing_state(const DiskImage& start, const Recording& recording,
                                const CrashPlan& plan, size_t from, const StateCheck& check);
// The same for the promises of a script; empty text: every promise is kept in every state.
CrashFailure find_crash_failure(const Recorded& recorded, const CrashPlan& plan, size_t from = 0);
// Where the mark that ends with `what` is, the end where there is none.
size_t position_of_mark(const Recording& recording, const std::string& what);

}  // namespace test
