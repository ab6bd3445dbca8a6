// A payload guest (guest-images/payloads) on the host's own KVM: machine, devices and what the
// guest prints. One object a guest; several may run at once.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "devices/platform.h"
#include "devices/serial_output.h"
#include "vmm/base/fd.h"
#include "vmm/base/sections.h"
#include "vmm/machine.h"

namespace payload_test {

// Why this host cannot run payload guests; nothing where it can.
std::optional<std::string> cannot_run();

class Guest {
 public:
  struct Options {
    std::string payload;  // "hello"
    std::string command_line = "";
    uint64_t memory_bytes = 64 << 20;
    uint32_t cpus = 1;
    bool log_from_start = false;
    bool rng = false;
    std::string payload_directory = "";  // empty: where the build put them
    bool devices_begin = true;           // false: platform().begin() is the test's
  };
  using Disks = std::vector<virtio::Block::Options>;
  // Loaded and booted, but not running yet: machine().run() does that.
  static base::Result<std::unique_ptr<Guest>> create(const Options& options, Disks disks = {});
  // Of a snapshot: `fill` gives it its memory, or returns what brings it, which ends between
  // devices and memory. Not running yet either.
  using Fill = std::function<base::Result<std::shared_ptr<void>>(vmm::GuestMemory&)>;
  static base::Result<std::unique_ptr<Guest>> restore(const Options& options,
                                                      base::SectionReader sections,
                                                      const Fill& fill, Disks disks = {});
  // The order of destruction is the one devices/platform.h asks for.
  ~Guest();

  vmm::Machine& machine() { return *machine_; }
  devices::Platform& platform() { return *platform_; }

  // Waits until the machine has a stop reason; none after `limit`.
  std::optional<vmm::StopReason> wait(std::chrono::seconds limit = std::chrono::seconds(120));
  // Waits until the guest's output contains `text` and returns the output.
  std::string wait_for_output(const std::string& text,
                              std::chrono::seconds limit = std::chrono::seconds(120));
  // What the guest has printed so far; after all_output() nothing more is taken.
  std::string output() const;
  std::string all_output();
  void type(const std::string& text);

 private:
  Guest() = default;
  base::Result<void> add_devices(const Options& options, Disks disks);

  std::unique_ptr<vmm::Machine> machine_;
  std::shared_ptr<void> pager_;
  std::unique_ptr<devices::Platform> platform_;
  base::Fd console_;
  std::unique_ptr<devices::SerialOutput> serial_output_;
};

// The content of a field `key=…` in the guest's output, up to the next space or line.
std::string field(const std::string& output, const std::string& key);

}  // namespace payload_test
