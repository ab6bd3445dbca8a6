// What `minivmm doctor` looks at, one check a thing: what this host can do, and what to do where
// it cannot. Nothing is changed on the host.
#pragma once

#include <string>
#include <vector>

#include "vmm/kvm_probe.h"

namespace cli {

struct HostCheck {
  enum class State {
    kOk,
    kLimited,  // something is slower or missing, machines run
    kMissing,  // no machine can run
  };
  std::string name;
  State state = State::kOk;
  std::string found;   // what there is
  std::string advice;  // what to do; empty where it is good
};

const char* state_name(HostCheck::State state);

// All checks, in the order in which they are shown.
std::vector<HostCheck> check_host(const vmm::KvmProbe& kvm);

}  // namespace cli
