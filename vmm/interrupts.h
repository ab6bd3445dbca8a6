// Interrupts and queue kicks as devices see them. The machine implements these on KVM
// (kvm_interrupts.h); unit tests use fakes that count.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "vmm/base/fd.h"
#include "vmm/base/result.h"
#include "vmm/guest_address.h"

namespace vmm {

// One pin of the IOAPIC. Any thread may call it.
class InterruptLine {
 public:
  virtual ~InterruptLine() = default;
  virtual void set_level(bool high) = 0;
};

// What a device writes to raise a message-signalled interrupt (PCI 3.0, 6.8).
struct MsiMessage {
  uint64_t address = 0;
  uint32_t data = 0;
  bool operator==(const MsiMessage&) const = default;
};

// One MSI-X vector: a GSI of its own with an irqfd, so that signal() is one write(2) and may be
// called from any thread. set_message() must have succeeded before the first signal().
class MsiVector {
 public:
  virtual ~MsiVector() = default;
  virtual base::Result<void> set_message(const MsiMessage& message) = 0;
  virtual void signal() = 0;
};

struct MsiRoute {
  MsiVector* vector = nullptr;
  MsiMessage message;
};

class InterruptController {
 public:
  virtual ~InterruptController() = default;
  virtual std::unique_ptr<InterruptLine> line(uint32_t gsi) = 0;
  virtual base::Result<std::unique_ptr<MsiVector>> create_msi_vector() = 0;
  // set_message() for vectors of this controller, at the price of one; where one message is refused
  // none of them is set.
  virtual base::Result<void> set_messages(std::span<const MsiRoute> routes) = 0;
};

// ioeventfd: a guest write of any length to `address` signals the event without an exit to us.
class Doorbells {
 public:
  virtual ~Doorbells() = default;
  virtual base::Result<void> attach_doorbell(Gpa address, const base::EventFd& event) = 0;
  virtual void detach_doorbell(Gpa address, const base::EventFd& event) = 0;
};

}  // namespace vmm
