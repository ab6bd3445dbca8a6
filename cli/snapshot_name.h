// How a snapshot is named on the command line: STORE or STORE@ID, where ID is the beginning of its
// id and no ID means the newest.
#pragma once

#include <string>
#include <string_view>

#include "vmm/base/result.h"

namespace cli {

struct SnapshotName {
  std::string store;      // a path
  std::string id_prefix;  // lower-case hexadecimal digits, at most 32; empty: the newest
};

// An '@' before the last '/' belongs to the path: a store called "a@b" is written "a@b/".
base::Result<SnapshotName> parse_snapshot_name(std::string_view text);

// "a91f", as --delete takes it: the beginning of an id.
base::Result<std::string> parse_id_prefix(std::string_view text);

}  // namespace cli
