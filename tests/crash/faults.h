// Faults at every call of an operation, one at a time, in every way a call can fail.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "tests/support/model_storage.h"

namespace test {

// A way to fail, and the calls that can.
struct Way {
  const char* name;
  Fault fault;
  bool (*applies)(Call call);
  bool all_later = false;  // and every call after it
};
const std::vector<Way>& ways();
// For INSTANTIATE_TEST_SUITE_P.
std::string way_name(const Way& way);

// Lets one call fail, the `number`-th from now on, until end(). Of a ModelFileSystem, or of what
// has its set_faults() and calls().
class FaultAt {
 public:
  template <typename System>
  FaultAt(System& system, uint64_t number, const Way& way)
      : set_faults_([&system](FaultPlan plan) { system.set_faults(std::move(plan)); }) {
    set_faults_([this, way, wanted = system.calls() + number](const CallSite& site) {
      return at(site, wanted, way);
    });
  }
  FaultAt(const FaultAt&) = delete;
  FaultAt& operator=(const FaultAt&) = delete;
  ~FaultAt() { end(); }
  void end() { set_faults_({}); }

  bool met() const { return hit_.has_value(); }  // there was such a call
  bool failed() const { return failed_; }        // it can fail so, and did
  Call call() const { return hit_->call; }
  // It would have changed something, or made it durable.
  bool changes() const {
    return met() && call() != Call::kOpen && call() != Call::kRead && call() != Call::kList;
  }
  const std::string& name() const { return hit_->name; }
  std::string text() const {
    return met() ? std::string(call_name(call())) + " " + name() : "no such call";
  }

 private:
  std::optional<Fault> at(const CallSite& site, uint64_t wanted, const Way& way);

  const std::function<void(FaultPlan)> set_faults_;
  std::optional<CallSite> hit_;
  bool failed_ = false;
};

}  // namespace test
