// A Storage, for reading, in which the reads of one thread wait until a gate opens: what others do
// while it is in the middle of one.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>

#include "snapshot/storage.h"

namespace test {

class Gate {
 public:
  // Of the threads of this name (pthread_setname_np).
  explicit Gate(std::string thread) : thread_(std::move(thread)) {}
  void open();
  // Whether the thread comes to the gate, soon.
  bool wait_for_thread();
  // Called by every reader.
  void pass();

 private:
  const std::string thread_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool open_ = false, waiting_ = false;
};

std::unique_ptr<snapshot::Storage> gate_reads(std::unique_ptr<snapshot::Storage> beneath,
                                              Gate& gate);

}  // namespace test
