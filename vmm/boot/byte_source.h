// A forward-only source of bytes, so that a kernel's payload is unpacked straight into the place
// where it runs. Used by one thread, during loading only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "vmm/base/result.h"

namespace vmm::boot {

class ByteSource {
 public:
  virtual ~ByteSource() = default;
  // Fills `into` from the front and returns how much; less than asked only at the end of the data.
  virtual base::Result<size_t> read(std::span<std::byte> into) = 0;
  // Passes over `bytes` and returns how much; less than asked only at the end of the data.
  virtual base::Result<uint64_t> skip(uint64_t bytes);
};

// `bytes` as they are; they must outlive the source.
std::unique_ptr<ByteSource> plain_source(std::span<const std::byte> bytes);

// The content of a compressed payload, which must outlive the source: the format is told by its
// first bytes. What follows the compressed data is ignored (the kernel appends its size).
base::Result<std::unique_ptr<ByteSource>> unpacking_source(std::span<const std::byte> payload);

}  // namespace vmm::boot
