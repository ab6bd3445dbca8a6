// Opens what STORE@ID names, for the commands that read a snapshot; finds a branch.
#pragma once

#include <memory>
#include <string>

#include "snapshot/store/store.h"
#include "vmm/base/result.h"

namespace cli {

// Held against prune for as long as it is open.
struct OpenSnapshot {
  std::unique_ptr<snapshot::Store> store;
  std::shared_ptr<const snapshot::Snapshot> snapshot;
  std::shared_ptr<snapshot::Snapshot::Hold> hold;
};

base::Result<OpenSnapshot> open_snapshot(const std::string& name);

// What a machine left whose branch's id begins with `prefix`.
base::Result<snapshot::HeadInfo> find_head(const snapshot::Store& store, const std::string& prefix);

}  // namespace cli
