#include "cli/open_snapshot.h"

#include <fmt/format.h>

#include "cli/snapshot_name.h"

namespace cli {

base::Result<OpenSnapshot> open_snapshot(const std::string& text) {
  TRY_ASSIGN(SnapshotName name, parse_snapshot_name(text));
  OpenSnapshot open;
  TRY_ASSIGN(open.store, snapshot::Store::open(name.store));
  TRY_ASSIGN(auto id, open.store->resolve(name.id_prefix));
  TRY_ASSIGN(open.snapshot, open.store->load(id));
  TRY_ASSIGN(open.hold, open.snapshot->hold());
  return open;
}

base::Result<snapshot::HeadInfo> find_head(const snapshot::Store& store,
                                           const std::string& prefix) {
  TRY_ASSIGN(auto heads, store.heads());
  std::erase_if(heads, [&](const auto& head) { return !head.branch.text().starts_with(prefix); });
  if (heads.size() == 1) return heads[0];
  return base::fail(fmt::format("{} branches of the store begin with '{}': see minivmm list",
                                heads.empty() ? "no" : "several", prefix));
}

}  // namespace cli
