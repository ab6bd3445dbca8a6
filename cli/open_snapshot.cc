#include "cli/open_snapshot.h"

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

}  // namespace cli
