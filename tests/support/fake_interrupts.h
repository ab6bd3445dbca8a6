// Interrupts and doorbells in memory: counts what was raised, and plays the part of KVM's
// ioeventfds. Any thread may raise a vector.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <stdexcept>
#include <vector>

#include "tests/support/fake_line.h"
#include "vmm/interrupts.h"

namespace test {

class FakeInterrupts : public vmm::InterruptController, public vmm::Doorbells {
 public:
  struct VectorRecord {
    std::atomic<unsigned> signals = 0;
    unsigned messages_set = 0;
    vmm::MsiMessage message;
    // Signals before any message: KVM has no route for them.
    std::atomic<unsigned> unrouted = 0;
  };

  std::unique_ptr<vmm::InterruptLine> line(uint32_t) override {
    return std::make_unique<FakeLine>(line_);
  }
  base::Result<std::unique_ptr<vmm::MsiVector>> create_msi_vector() override {
    if (vectors_.size() == vectors_left) return base::fail("no vector left");
    vectors_.push_back(std::make_unique<VectorRecord>());
    return std::make_unique<Vector>(*this, *vectors_.back());
  }
  base::Result<void> set_messages(std::span<const vmm::MsiRoute> routes) override {
    if (refuse_messages) return base::fail("no route");
    ++batches;
    for (const vmm::MsiRoute& route : routes) TRY(route.vector->set_message(route.message));
    return {};
  }
  base::Result<void> attach_doorbell(vmm::Gpa address, const base::EventFd& event) override {
    if (refuse_doorbells) return base::fail("no doorbells here");
    if (!doorbells_.emplace(address.value, &event).second) return base::fail("doorbell exists");
    return {};
  }
  void detach_doorbell(vmm::Gpa address, const base::EventFd& event) override {
    auto found = doorbells_.find(address.value);
    if (found != doorbells_.end() && found->second == &event) doorbells_.erase(found);
  }

  // A guest write to `address`: true where a doorbell takes it.
  bool ring(uint64_t address) {
    auto found = doorbells_.find(address);
    if (found == doorbells_.end()) return false;
    found->second->signal();
    return true;
  }
  VectorRecord& vector(size_t index) { return *vectors_.at(index); }
  size_t vectors() const { return vectors_.size(); }
  const std::map<uint64_t, const base::EventFd*>& doorbells() const { return doorbells_; }
  unsigned unrouted() const {
    unsigned sum = 0;
    for (auto& vector : vectors_) sum += vector->unrouted;
    return sum;
  }

  bool refuse_messages = false;
  bool refuse_doorbells = false;
  size_t vectors_left = 4096;
  unsigned batches = 0;  // calls of set_messages()

 private:
  class Vector : public vmm::MsiVector {
   public:
    Vector(FakeInterrupts& owner, VectorRecord& record) : owner_(owner), record_(record) {}
    base::Result<void> set_message(const vmm::MsiMessage& message) override {
      if (owner_.refuse_messages) return base::fail("no route");
      record_.message = message;
      ++record_.messages_set;
      return {};
    }
    void signal() override {
      if (record_.messages_set == 0) ++record_.unrouted;
      ++record_.signals;
    }

   private:
    FakeInterrupts& owner_;
    VectorRecord& record_;
  };

  LineRecord line_;
  std::vector<std::unique_ptr<VectorRecord>> vectors_;
  std::map<uint64_t, const base::EventFd*> doorbells_;
};

}  // namespace test
