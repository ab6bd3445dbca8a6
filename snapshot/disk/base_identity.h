// What a snapshot remembers of a disk's base image, which is not part of the store: enough to tell,
// when it is restored, whether the file on the command line is the one, unchanged.
//
// Plain values; any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "vmm/base/result.h"

namespace snapshot {

struct BaseIdentity {
  uint64_t device = 0, inode = 0;
  uint64_t size = 0;  // bytes
  uint64_t modified_ns = 0, changed_ns = 0;
  uint64_t samples = 0;  // XXH3-64 of pieces spread over the content, each seeded by the last

  bool operator==(const BaseIdentity&) const = default;
};

// Of an open image file or block device of `size` bytes, which nobody writes to. Reads a megabyte.
base::Result<BaseIdentity> identify_base(int fd, uint64_t size, const std::string& path);

// Is the image at `path` the one that was `recorded`? The same file is, unless it was written to
// since: that takes no reading. A copy is where size and samples are the same. The error is a
// sentence about the difference.
base::Result<void> check_base(const BaseIdentity& recorded, int fd, uint64_t size,
                              const std::string& path);

std::vector<std::byte> encode_base(const BaseIdentity& identity);
base::Result<BaseIdentity> decode_base(std::span<const std::byte> bytes);

}  // namespace snapshot
