// heads/<branch>, called HEAD: which snapshot a branch continues, and the disk layers written
// since. Plain values; encode and decode.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "snapshot/store/format.h"

namespace snapshot {

struct Head {
  struct Layer {
    uint32_t disk = 0;
    Id id;
    bool operator==(const Layer&) const = default;
  };
  Id branch;
  std::optional<Id> parent;
  std::string vm_name;
  std::vector<Layer> layers;  // of each disk, oldest first
  bool operator==(const Head&) const = default;
};

std::vector<std::byte> encode_head(const Format& format, const Head& head);
base::Result<Head> decode_head(const Format& format, std::span<const std::byte> bytes);
base::Result<Head> read_head(Storage& storage, const Format& format, const Id& branch);

}  // namespace snapshot
