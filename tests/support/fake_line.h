// An interrupt line for unit tests: remembers its level and how often it rose.
#pragma once

#include <memory>

#include "vmm/interrupts.h"

namespace test {

struct LineRecord {
  bool high = false;
  unsigned rises = 0;
  unsigned calls = 0;
};

class FakeLine : public vmm::InterruptLine {
 public:
  explicit FakeLine(LineRecord& record) : record_(record) {}
  void set_level(bool high) override {
    if (high && !record_.high) record_.rises++;
    record_.high = high;
    record_.calls++;
  }

 private:
  LineRecord& record_;
};

}  // namespace test
