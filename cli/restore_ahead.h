// What a restore does on another CPU, while the main thread reads the store and makes the machine:
//
//   main thread   snapshot's manifest, names ──┬── memory, vCPUs, devices ── state ── guest runs
//   here          what KVM offers ─────────────┴── the page that the host writes to
//
// Nothing depends on it: it only fills what is asked again where it is needed, where its errors are
// heard.
#pragma once

#include <future>
#include <memory>
#include <thread>

#include "snapshot/store/store.h"

namespace cli {

class RestoreAhead {
 public:
  // Without a thread, where none can be made, it does nothing.
  RestoreAhead();
  ~RestoreAhead();
  RestoreAhead(const RestoreAhead&) = delete;
  RestoreAhead& operator=(const RestoreAhead&) = delete;

  // Reads on with the machine's snapshot, which is read through the store. At most once.
  void go_on(std::shared_ptr<const snapshot::Store> store,
             std::shared_ptr<const snapshot::Snapshot> from);

 private:
  struct Opened {
    std::shared_ptr<const snapshot::Store> store;  // there as long as the snapshot
    std::shared_ptr<const snapshot::Snapshot> from;
  };
  std::promise<Opened> opened_;
  bool told_ = false;
  std::thread thread_;
};

}  // namespace cli
