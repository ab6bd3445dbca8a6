// The snapshots of a running machine: taken when somebody asks, or every so often, one at a time,
// on a thread of their own; old ones pruned behind it. The first one without a parent is full.
//
// Owned by the machine's process. request(), status(), cancel() may be called from any thread;
// destroyed (which cancels) before the machine's vCPU threads are ended.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "snapshot/capture.h"
#include "snapshot/machine_guest.h"
#include "snapshot/store/store.h"

namespace snapshot {

class SnapshotService {
 public:
  struct Config {
    std::string vm_name;
    std::string config;      // of the machine, as the manifest keeps it
    std::string store_path;  // empty: said with the first request
    Capture::Options options;
    std::chrono::milliseconds every{0};  // 0: only when asked
    uint32_t keep = 0;                   // snapshots of this machine's branch; 0: all
    // After a snapshot with Request::stop, on the service's thread: ends the machine.
    std::function<void()> on_stopped;
    // A disk's file system is full, on the service's thread: pauses the machine and says so.
    std::function<void(const std::string& message)> on_disk_full;
    // Called on the service's thread after each snapshot that nobody asked for.
    std::function<void(const base::Result<Capture::Outcome>&)> on_scheduled;
  };
  struct Request {
    std::string store_path;  // empty: the one in use
    bool full = false;
    std::optional<uint64_t> max_pause_ns;
    std::optional<Capture::OnHot> on_hot;
    bool stop = false;  // the guest does not run again after the pause
    // With `stop`: the machine ends once status() has told how it went, or nobody asked for long.
    bool result_wanted = false;
  };
  struct Status {
    uint64_t number = 0;  // of the request that runs, or ran last; from 1
    bool running = false;
    uint64_t round = 0, pages_left = 0, copied = 0, written_bytes = 0, elapsed_ms = 0;
    bool committing = false;
    std::optional<base::Result<Capture::Outcome>> last;  // where it does not run
    // Of the ones before, the newest last: who asked for one may ask late.
    std::vector<std::pair<uint64_t, base::Result<Capture::Outcome>>> previous;
    std::string store_path;
  };

  // A restored machine comes with its store and its branch. What is asked for waits for begin().
  static base::Result<std::unique_ptr<SnapshotService>> create(Config config,
                                                               std::unique_ptr<MachineGuest> guest,
                                                               std::shared_ptr<Store> store,
                                                               std::unique_ptr<Branch> branch);
  base::Result<void> begin();
  ~SnapshotService();

  // A disk's file system has no space: the machine is paused until its owner made some. Returns at
  // once; any lock may be held.
  void disk_full(const std::string& message);
  // There may be space again.
  void resume_disks();
  // The guest was asked to shut down: what nobody asks for is not taken for a while. The last
  // snapshot of a long run is to be one that goes on.
  void shutdown_asked();
  // Begins a snapshot and returns its number; where one that nobody asked for is being taken, this
  // one follows it. Fails where one that was asked for is being taken, or where the machine writes
  // to another store.
  base::Result<uint64_t> request(const Request& request);
  Status status();
  // The one that is being taken, and the one that waits for it, end with an error; none: nothing
  // happens.
  void cancel();
  // Waits until the snapshot of that number has ended.
  base::Result<Capture::Outcome> wait(uint64_t number);

 private:
  SnapshotService(Config config, std::unique_ptr<MachineGuest> guest, std::shared_ptr<Store> store,
                  std::unique_ptr<Branch> branch);
  void thread_main();
  base::Result<Capture::Outcome> take(const Request& request);
  base::Result<void> open_store(const std::string& path);
  void close_store();
  void prune();
  // The next one begins, and has this number.
  uint64_t begin_next();
  // After a snapshot with Request::stop; nothing is taken any more.
  void end_machine(const Request& request, std::unique_lock<std::mutex>& lock);

  Config config_;
  std::unique_ptr<MachineGuest> guest_;
  std::shared_ptr<Store> store_;
  std::unique_ptr<Branch> branch_;
  std::unique_ptr<Capture> capture_;
  std::unique_ptr<Capture::Progress> progress_;

  mutable std::mutex mutex_;  // guards the following
  std::condition_variable changed_;
  std::optional<Request> next_;
  uint64_t number_ = 0;
  bool running_ = false;
  bool scheduled_ = false;  // what runs, or ran last: nobody asked for it
  bool ending_ = false;
  bool stopped_ = false;  // the machine, by a snapshot
  bool told_ = false;     // status() has told the last result
  std::string store_path_;
  std::optional<std::string> disk_full_;
  std::chrono::steady_clock::time_point quiet_until_;
  std::chrono::steady_clock::time_point started_;
  std::optional<base::Result<Capture::Outcome>> last_;
  std::vector<std::pair<uint64_t, base::Result<Capture::Outcome>>> previous_;

  std::thread thread_;  // last: it uses all of the above
};

}  // namespace snapshot
