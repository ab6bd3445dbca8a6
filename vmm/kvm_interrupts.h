// Interrupts and doorbells on KVM: IOAPIC pins by KVM_IRQ_LINE, MSI-X vectors as GSIs of their own
// with irqfds, and the one routing table that maps GSIs to pins and messages.
#pragma once

#include <map>
#include <mutex>

#include "vmm/interrupts.h"
#include "vmm/kvm.h"

namespace vmm {

class KvmInterrupts : public InterruptController, public Doorbells {
 public:
  // `vm` outlives this object, and this object what it creates.
  explicit KvmInterrupts(const KvmVm& vm) : vm_(vm) {}

  std::unique_ptr<InterruptLine> line(uint32_t gsi) override;
  base::Result<std::unique_ptr<MsiVector>> create_msi_vector() override;
  base::Result<void> set_messages(std::span<const MsiRoute> routes) override;
  base::Result<void> attach_doorbell(Gpa address, const base::EventFd& event) override;
  void detach_doorbell(Gpa address, const base::EventFd& event) override;

 private:
  class Line;
  class Vector;
  // Takes over these routes: the whole table goes to the kernel in one call.
  base::Result<void> set_routes(std::span<const MsiRoute> routes);

  const KvmVm& vm_;
  std::mutex mutex_;
  uint32_t next_gsi_ = 0;  // of MSI vectors, counted from layout::kFirstMsiGsi
  std::map<uint32_t, MsiMessage> messages_;
};

}  // namespace vmm
