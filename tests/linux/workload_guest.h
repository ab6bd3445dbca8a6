// A Linux guest that runs the checking workload (guest-images/tools/workload) on an ext4 disk, its
// snapshots, and the machines restored from them.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tests/linux/guest.h"
#include "tests/linux/vm_process.h"

namespace linux_tests {

// One line "workload: beat=… ok …" of the console.
struct Beat {
  uint64_t number = 0;
  uint64_t records[2] = {};  // of the two logs on the disk, flushed
  uint64_t monotonic_ms = 0, real_ms = 0;
};

// All whole lines of `output` behind `from`.
std::vector<Beat> beats(std::string_view output, size_t from = 0);

// What `minivmm snapshot --json` says.
struct Taken {
  std::string id;
  bool full = false;
  uint64_t pages = 0;
};

class WorkloadGuest {
 public:
  // `prepare`: lines of the guest's script that are run before the workload.
  explicit WorkloadGuest(const std::string& prepare = "", const std::string& kernel = "cloud");

  // `minivmm run`, with the workload at its second beat.
  std::unique_ptr<VmProcess> run(const std::string& name,
                                 const std::vector<std::string>& more = {}) const;
  std::unique_ptr<VmProcess> restore(const std::string& id, const std::string& name,
                                     const std::vector<std::string>& more = {}) const;
  // `minivmm snapshot NAME --json`; an exception where it fails.
  static Taken snapshot(const std::string& name, const std::vector<std::string>& more = {});

  std::string store() const { return guest_.path("store"); }
  std::string at(const std::string& id) const { return store() + "@" + id; }
  const Guest& files() const { return guest_; }

  // The disk of snapshot `id`, exported: clean for e2fsck once its journal is replayed, and with at
  // least the records that `flushed` had announced.
  void expect_disk(const std::string& id, const Beat& flushed) const;

 private:
  Guest guest_;
  std::string disk_;
};

// Waits for the next beat; none where the workload has failed or says nothing more.
std::optional<Beat> next_beat(VmProcess& vm);
// The last beat whose line has come so far.
Beat last_beat(VmProcess& vm);
// Has the workload look at everything once more.
void expect_verified(VmProcess& vm);
// Runs a shell command in the guest, and gives what it printed.
std::string run_in_guest(VmProcess& vm, const std::string& command);
// Ends the process as a crash of the host would: nothing is tidied up.
void kill_now(VmProcess& vm);
// The last lines of the output, for messages.
std::string tail(const VmProcess& vm);

}  // namespace linux_tests
