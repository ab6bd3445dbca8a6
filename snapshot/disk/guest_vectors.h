// Walks over the pieces of guest memory that a request names.
#pragma once

#include <sys/uio.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

namespace snapshot {

struct VectorPosition {
  size_t index = 0;
  size_t offset = 0;  // bytes into that vector
};

// Calls visit(memory, bytes) for the pieces of `bytes` bytes from `at` on; where they end.
template <typename Visit>
VectorPosition walk_vectors(std::span<const iovec> vectors, VectorPosition at, uint64_t bytes,
                            Visit visit) {
  while (bytes > 0 && at.index < vectors.size()) {
    const iovec& vector = vectors[at.index];
    size_t piece = std::min<uint64_t>(vector.iov_len - at.offset, bytes);
    visit(static_cast<std::byte*>(vector.iov_base) + at.offset, piece);
    bytes -= piece;
    at.offset += piece;
    if (at.offset == vector.iov_len) at = {at.index + 1, 0};
  }
  return at;
}

inline uint64_t total_bytes(std::span<const iovec> vectors) {
  uint64_t bytes = 0;
  for (const iovec& vector : vectors) bytes += vector.iov_len;
  return bytes;
}

}  // namespace snapshot
