// The guest's console as the process has it: the serial port or the virtio console on one side,
// standard input and output on the other. Made before the platform (a virtio console needs its
// descriptors), connected after it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>

#include "cli/run_options.h"
#include "devices/platform.h"
#include "devices/serial_output.h"
#include "vmm/base/event_loop.h"
#include "vmm/base/result.h"

namespace cli {

class GuestConsole {
 public:
  // `on_room` is called from any thread when push() may take more again.
  static base::Result<std::unique_ptr<GuestConsole>> create(ConsoleKind kind,
                                                            std::function<void()> on_room);
  ~GuestConsole();

  // The virtio console's ends, once; none for another kind.
  std::optional<devices::PlatformConfig::Console> take_descriptors();
  // Once; `platform` outlives this object. Output of a serial port waits there until begin().
  void connect(devices::Platform& platform);
  // Starts the threads. Nothing is pushed before.
  base::Result<void> begin();

  bool takes_input() const { return kind_ != ConsoleKind::kNone; }
  // Gives the guest as many bytes as there is room for and returns how many.
  size_t push(std::span<const uint8_t> bytes);

 private:
  GuestConsole(ConsoleKind kind, std::function<void()> on_room)
      : kind_(kind), on_room_(std::move(on_room)) {}
  base::Result<void> create_pipe();

  ConsoleKind kind_;
  std::function<void()> on_room_;
  std::optional<devices::PlatformConfig::Console> descriptors_;
  base::Fd input_;                          // our end of the pipe to a virtio console
  std::unique_ptr<base::EventLoop> waker_;  // waits for room in that pipe
  devices::SerialOutput::Target target_;    // of a serial port, until it is connected
  devices::Serial* serial_ = nullptr;
  std::unique_ptr<devices::SerialOutput> output_;
};

}  // namespace cli
