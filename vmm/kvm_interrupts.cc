#include "vmm/kvm_interrupts.h"

#include <fmt/format.h>

#include "vmm/base/log.h"
#include "vmm/layout.h"

namespace vmm {

using base::Result;

// KVM_CAP_IRQ_ROUTING is 4096 on x86; the pins take 40 of them.
static constexpr uint32_t kMaxMsiRoutes = 4000;

class KvmInterrupts::Line : public InterruptLine {
 public:
  Line(const KvmVm& vm, uint32_t gsi) : vm_(vm), gsi_(gsi) {}
  void set_level(bool high) override {
    if (auto set = vm_.set_irq_line(gsi_, high); !set) base::log_error("{}", set.error().text());
  }

 private:
  const KvmVm& vm_;
  uint32_t gsi_;
};

class KvmInterrupts::Vector : public MsiVector {
 public:
  Vector(KvmInterrupts& owner, uint32_t gsi, base::EventFd event)
      : owner_(owner), gsi_(gsi), event_(std::move(event)) {}
  ~Vector() override {
    if (attached_) (void)owner_.vm_.set_irqfd(event_, gsi_, false);
  }

  Result<void> set_message(const MsiMessage& message) override {
    MsiRoute route{this, message};
    TRY(owner_.set_routes({&route, 1}));
    return attach();
  }
  Result<void> attach() {
    if (!attached_) TRY(owner_.vm_.set_irqfd(event_, gsi_, true));
    attached_ = true;
    return {};
  }
  void signal() override { event_.signal(); }
  uint32_t gsi() const { return gsi_; }

 private:
  KvmInterrupts& owner_;
  uint32_t gsi_;
  base::EventFd event_;
  bool attached_ = false;
};

std::unique_ptr<InterruptLine> KvmInterrupts::line(uint32_t gsi) {
  return std::make_unique<Line>(vm_, gsi);
}

Result<std::unique_ptr<MsiVector>> KvmInterrupts::create_msi_vector() {
  TRY_ASSIGN(base::EventFd event, base::EventFd::create());
  std::lock_guard lock(mutex_);
  if (next_gsi_ >= kMaxMsiRoutes) {
    return base::fail("no interrupt route is free: too many devices");
  }
  uint32_t gsi = layout::kFirstMsiGsi + next_gsi_++;
  return std::make_unique<Vector>(*this, gsi, std::move(event));
}

Result<void> KvmInterrupts::set_messages(std::span<const MsiRoute> routes) {
  if (routes.empty()) return {};
  TRY(set_routes(routes));
  for (const MsiRoute& route : routes) TRY(static_cast<Vector*>(route.vector)->attach());
  return {};
}

Result<void> KvmInterrupts::set_routes(std::span<const MsiRoute> routes) {
  std::lock_guard lock(mutex_);
  std::map<uint32_t, MsiMessage> messages = messages_;
  for (const MsiRoute& route : routes) {
    messages[static_cast<const Vector*>(route.vector)->gsi()] = route.message;
  }
  std::vector<kvm_irq_routing_entry> entries;
  auto add_pin = [&](uint32_t pin, uint32_t chip, uint32_t chip_pin) {
    kvm_irq_routing_entry entry{};
    entry.gsi = pin;
    entry.type = KVM_IRQ_ROUTING_IRQCHIP;
    entry.u.irqchip.irqchip = chip;
    entry.u.irqchip.pin = chip_pin;
    entries.push_back(entry);
  };
  // The kernel's own default for the in-kernel chips, which this table replaces.
  for (uint32_t pin = 0; pin < layout::kFirstMsiGsi; ++pin) {
    if (pin < 16) add_pin(pin, pin < 8 ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE, pin % 8);
    add_pin(pin, KVM_IRQCHIP_IOAPIC, pin);
  }
  for (const auto& [message_gsi, routed] : messages) {
    kvm_irq_routing_entry entry{};
    entry.gsi = message_gsi;
    entry.type = KVM_IRQ_ROUTING_MSI;
    entry.u.msi.address_lo = static_cast<uint32_t>(routed.address);
    entry.u.msi.address_hi = static_cast<uint32_t>(routed.address >> 32);
    entry.u.msi.data = routed.data;
    entries.push_back(entry);
  }
  TRY(vm_.set_routing(entries));
  messages_.swap(messages);  // what the kernel refuses leaves its table as it was
  return {};
}

Result<void> KvmInterrupts::attach_doorbell(Gpa address, const base::EventFd& event) {
  return vm_.set_ioeventfd(event, address, true);
}

void KvmInterrupts::detach_doorbell(Gpa address, const base::EventFd& event) {
  // It was attached at this address, or was refused then; either way it is gone now.
  (void)vm_.set_ioeventfd(event, address, false);
}

}  // namespace vmm
