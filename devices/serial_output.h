// Carries the serial port's output to a descriptor (terminal, pipe, file, socket), on a thread of
// its own: a reader that is slow or stopped holds up neither a vCPU nor another device. The
// descriptor's own flags are left alone, it may be shared with a shell.
//
// A burst of output is one write(2): the thread waits kLinger after its first byte.
#pragma once

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "devices/serial.h"
#include "vmm/base/fd.h"
#include "vmm/base/result.h"

namespace devices {

class SerialOutput {
 public:
  static constexpr std::chrono::milliseconds kLinger{2};
  // How long the destructor waits for a reader that takes nothing.
  static constexpr std::chrono::milliseconds kStopTimeout{1000};

  // Where it goes: a descriptor of its own for the file of another.
  struct Target {
    base::Fd fd;
    bool socket = false;
  };
  static base::Result<Target> open(int fd);

  // Writes from begin() on. `serial` must outlive this.
  SerialOutput(Serial& serial, Target target);
  base::Result<void> begin();
  // All of it.
  static base::Result<std::unique_ptr<SerialOutput>> start(Serial& serial, int fd);
  // Writes out what the guest has sent so far, then stops.
  ~SerialOutput();

 private:
  void wake();
  void loop();
  void write_out();
  bool wait_writable();

  Serial& serial_;
  Target target_;
  bool broken_ = false;  // nobody reads any more: output is thrown away
  std::vector<uint8_t> chunk_;
  std::mutex mutex_;  // guards the two below
  bool woken_ = false;
  bool stopping_ = false;
  std::condition_variable changed_;
  std::thread thread_;
};

}  // namespace devices
